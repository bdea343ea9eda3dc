import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from martlet.sandbox import landlock, privileges
from martlet.sandbox.landlock import ALL, READ, READ_SHIELDED, WRITE_FILES, Ruleset
from tests.alone import alone
from tests.conftest import require


@pytest.fixture(autouse=True)
def version() -> int:
    require(landlock.version() > 0, "Landlock")
    return landlock.version()


def held_to(allowed: dict[str, landlock.Access], action: Callable[[], object]) -> int | None:
    """The error number that an action is refused with in a process that is held to rules."""

    def act() -> int | None:
        rules = Ruleset(landlock.version())
        for place, access in allowed.items():
            rules.allow(place, access)
        privileges.forbid_new_privileges()
        rules.enforce()
        try:
            action()
        except OSError as error:
            return error.errno
        return None

    return alone(act)


def test_what_no_rule_allows_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()

    assert held_to({}, (tmp_path / "file").read_bytes) == errno.EACCES
    assert held_to({"/": READ}, (tmp_path / "file").read_bytes) is None


def test_reading_is_not_writing(tmp_path: Path):
    (tmp_path / "file").touch()

    for action in (
        lambda: (tmp_path / "file").write_text("text"),
        lambda: os.truncate(tmp_path / "file", 0),
        lambda: os.unlink(tmp_path / "file"),
        lambda: os.mkdir(tmp_path / "folder"),
    ):
        assert held_to({"/": READ}, action) == errno.EACCES


def test_what_a_mount_shields_can_be_cut_short_as_far_as_rules_go(tmp_path: Path):
    (tmp_path / "file").touch()
    rules = {"/": READ_SHIELDED}

    assert held_to(rules, lambda: os.truncate(tmp_path / "file", 0)) is None
    assert held_to(rules, (tmp_path / "file").read_bytes) is None
    assert held_to(rules, lambda: (tmp_path / "file").open("r+b")) == errno.EACCES
    assert held_to(rules, lambda: os.unlink(tmp_path / "file")) == errno.EACCES


def test_a_rule_for_a_file_allows_what_it_says_of_files(tmp_path: Path):
    file, other = tmp_path / "file", tmp_path / "other"
    file.touch()
    other.touch()

    assert held_to({str(file): ALL}, lambda: file.write_text("text")) is None
    assert held_to({str(file): READ}, file.read_bytes) is None
    assert held_to({str(file): READ}, lambda: file.write_text("text")) == errno.EACCES
    assert held_to({str(file): ALL}, other.read_bytes) == errno.EACCES


def test_a_folder_of_its_own_is_free_for_everything_but_devices(tmp_path: Path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "file").touch()
    rules = {str(tmp_path): ALL}

    def use() -> None:
        os.rename(tmp_path / "one" / "file", tmp_path / "two" / "file")
        os.symlink("file", tmp_path / "two" / "link")
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "two" / "file").write_text("text")

    assert held_to(rules, use) is None
    assert held_to(rules, lambda: os.mknod(tmp_path / "null", 0o020600, os.makedev(1, 3))) == errno.EACCES


def test_a_rule_for_one_file_is_for_no_other(tmp_path: Path):
    for name in ("log", "other"):
        (tmp_path / name).touch()
    rules = {str(tmp_path / "log"): WRITE_FILES}

    assert held_to(rules, lambda: (tmp_path / "log").write_text("text")) is None
    assert held_to(rules, lambda: (tmp_path / "other").write_text("text")) == errno.EACCES


def test_a_rule_can_be_given_by_descriptor(tmp_path: Path):
    (tmp_path / "log").touch()
    log = os.open(tmp_path / "log", os.O_WRONLY)

    def rules_by_descriptor() -> str:
        rules = Ruleset(landlock.version())
        rules.allow(log, WRITE_FILES)
        privileges.forbid_new_privileges()
        rules.enforce()
        return (tmp_path / "log").read_text()

    assert alone(rules_by_descriptor) == ""
    os.close(log)


def test_a_pipe_needs_no_rule():
    def open_anew() -> int:
        _, writer = os.pipe()
        rules = Ruleset(landlock.version())
        rules.allow("/proc", READ)
        rules.allow(writer, WRITE_FILES)
        privileges.forbid_new_privileges()
        rules.enforce()
        return os.write(os.open(f"/proc/self/fd/{writer}", os.O_WRONLY), b"text")

    assert alone(open_anew) == 4


def test_a_rule_for_what_is_not_there_is_none(tmp_path: Path):
    assert held_to({str(tmp_path / "nothing"): READ}, lambda: None) is None


def test_programs_cannot_be_run_from_where_no_rule_says_so():
    assert held_to({}, lambda: os.execv("/bin/true", ["true"])) == errno.EACCES


def test_abstract_sockets_and_processes_outside_are_out_of_reach(version: int):
    require(version >= 6, "Landlock 6")
    name = f"\0martlet-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(name)
        listener.listen()
        assert held_to({}, lambda: client.connect(name)) == errno.EPERM
        client.connect(name)
    assert held_to({}, lambda: os.kill(os.getppid(), signal.SIGCONT)) == errno.EPERM


def test_older_versions_are_asked_for_what_they_know_only(tmp_path: Path):
    def old() -> int:
        rules = Ruleset(1)
        rules.allow("/", READ)
        rules.allow(str(tmp_path), ALL)
        privileges.forbid_new_privileges()
        rules.enforce()
        (tmp_path / "file").write_text("text")
        return 0

    assert alone(old) == 0
