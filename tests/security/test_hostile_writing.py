"""A function can write to its scratch space, and nowhere else."""

import hashlib
import os

import pytest

DENIED = {"EROFS", "EACCES", "EPERM"}

pytestmark = pytest.mark.engine("runc", "runsc")


@pytest.fixture(scope="module")
def writing(hostile):
    return hostile("writing")


def test_no_folder_is_open_to_it_but_its_scratch_space(writing):
    assert writing.attempt("writable_folders") == ["/tmp"]


def test_no_setting_of_the_kernel_is_open_to_it(writing):
    assert writing.attempt("writable_settings") == []


def test_code_system_and_processes_cannot_be_written(writing):
    paths = [
        "/",
        "/function",
        "/function/handler.py",
        "/dependencies",
        "/etc/passwd",
        "/etc/hosts",
        "/usr/bin/env",
    ]
    more = [os.__file__, "/dev", "/proc/self/oom_score_adj_", "/proc/1/mem", "/proc/sys/kernel/hostname"]
    for path, refused in writing.attempt("write", *paths, *more).items():
        assert refused in DENIED | {"ENOENT"}, path


def test_nothing_can_be_cut_short(writing):
    paths = ["/function/handler.py", "/etc/passwd", "/usr/bin/env", os.__file__, "/proc/self/oom_score_adj"]
    for path, refused in writing.attempt("cut", *paths).items():
        assert refused in DENIED | {"EINVAL"}, path


@pytest.mark.parametrize(
    "path", ["/function", "/function/handler.py", "/usr", "/etc/passwd", "/dev/null", "/tmp"]
)
def test_nothing_about_what_is_there_can_be_changed(writing, path):
    for action, refused in writing.attempt("change", path).items():
        own = path == "/tmp" and action == "replace by a link"
        assert own or refused in DENIED | {"EBUSY", "ENOTDIR", "EOPNOTSUPP", "EXDEV", "ENOSYS"}, action


def test_no_way_round_by_links_or_descriptors(writing):
    for path, refused in writing.attempt(
        "link", "/function/handler.py", "/etc/passwd", "/usr/bin/env"
    ).items():
        assert refused in DENIED | {"EXDEV"}, path
    assert writing.attempt("reopen") in DENIED


def test_the_package_on_the_host_stays_what_was_deployed(writing, platform):
    view = platform.client.get("/functions/writing").json()
    files = platform.data / "packages" / view["code"] / "files"
    before = {
        file.name: hashlib.sha256(file.read_bytes()).digest() for file in files.iterdir() if file.is_file()
    }
    assert set(before) == {"handler.py", "attempts.py"}
    writing.attempt("litter")
    writing.attempt("write", "/function/handler.py", "/function")
    after = {
        file.name: hashlib.sha256(file.read_bytes()).digest() for file in files.iterdir() if file.is_file()
    }
    assert after == before


def test_what_it_leaves_is_not_there_for_the_next_instance(writing, platform):
    assert "file" in writing.attempt("litter")
    for instance in platform.instances("writing"):
        platform.client.delete(f"/instances/{instance['id']}")
    assert writing.attempt("write", "/tmp/folder/file") == {"/tmp/folder/file": "ENOENT"}
