"""The roots of containers that show the folders of this machine."""

import os
from pathlib import Path

import pytest

from martlet.drivers.roots import HostRoots, furnish
from martlet.runtimes import Catalogue
from martlet.runtimes.interpreter import INTERPRETER
from martlet.sandbox.bundle import CODE, DOOR, SANDBOX

pytestmark = pytest.mark.anyio
PYTHON = Catalogue.load().resolve("python")


async def test_the_root_of_this_machine_shows_the_system_and_the_interpreter(tmp_path: Path):
    root = await HostRoots(tmp_path, "").of(PYTHON)

    assert root.binds["/usr"] == "/usr"
    assert any(INTERPRETER.is_relative_to(place) for place in root.binds)
    assert root.runtime == PYTHON


async def test_every_folder_that_is_shown_has_its_place(tmp_path: Path):
    root = await HostRoots(tmp_path, "").of(PYTHON)

    assert [place for place in root.binds if not (root.path / place.lstrip("/")).is_dir()] == []


async def test_nothing_is_shown_inside_of_what_is_shown(tmp_path: Path):
    runtime = PYTHON.model_copy(
        update={"shown": (Path("/opt/tool"), Path("/opt/tool/lib"), Path("/usr/share"))}
    )

    root = await HostRoots(tmp_path, "").of(runtime)

    assert "/opt/tool" in root.binds
    assert not {"/opt/tool/lib", "/usr/share"} & root.binds.keys()


async def test_links_of_the_system_are_links_in_the_root(tmp_path: Path):
    root = await HostRoots(tmp_path, "").of(PYTHON)

    for name in ("bin", "lib"):
        if Path("/", name).is_symlink():
            assert (root.path / name).readlink() == Path("/", name).readlink()


async def test_it_asks_the_resolvers_that_it_was_told(tmp_path: Path):
    root = await HostRoots(tmp_path, "nameserver 192.0.2.1\n").of(PYTHON)

    assert (root.path / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"


async def test_it_can_be_read_whatever_the_umask_is(tmp_path: Path):
    before = os.umask(0o077)
    try:
        root = await HostRoots(tmp_path / "roots", "").of(PYTHON)
    finally:
        os.umask(before)

    assert (root.path / "etc/passwd").stat().st_mode & 0o777 == 0o644
    assert (root.path / "etc").stat().st_mode & 0o777 == 0o755


async def test_a_root_has_the_places_of_what_is_a_containers_own(tmp_path: Path):
    furnish(tmp_path)
    furnish(tmp_path)

    assert all(
        (tmp_path / place.lstrip("/")).is_dir() for place in (CODE, DOOR, SANDBOX, "/tmp", "/proc", "/dev")
    )
    assert os.readlink(tmp_path / "function") == ".code/function"
    assert os.readlink(tmp_path / "dependencies") == ".code/dependencies"


async def test_a_folder_where_code_is_seen_makes_room(tmp_path: Path):
    (tmp_path / "function").mkdir()

    furnish(tmp_path)

    assert os.readlink(tmp_path / "function") == ".code/function"
