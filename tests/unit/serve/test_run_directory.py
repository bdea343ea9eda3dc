from pathlib import Path

import pytest

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Clone, Mount
from martlet.serve import run_directory
from tests.alone import alone

pytestmark = pytest.mark.root


def mounts_at(folder: Path) -> list[str]:
    """Returns the kinds of file systems that are mounted right there, the first one first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    parted = [line.partition(" - ") for line in lines]
    return [kind.split()[0] for mount, _, kind in parted if mount.split()[4] == str(folder)]


def lives(run: Path, below: str | None = None) -> list[list[str]]:
    """Makes and removes the folder twice, above a file system of that kind; returns what was mounted there each time.

    It is not removed in between, as after a platform that was killed.
    """
    syscalls.unshare(Clone.MOUNT)
    syscalls.make_private()
    if below is not None:
        syscalls.mount(below, str(run.parent), Mount.NO_DEV, "mode=700")
    seen = []
    for _ in range(2):
        run_directory.make(run)
        (run / "sock").touch()
        seen.append(mounts_at(run))
    run_directory.remove(run)
    assert not run.exists()
    return [*seen, mounts_at(run)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "martlet" / "run"
    folder.parent.mkdir(mode=0o700)
    return folder


def test_on_a_disk_there_is_one_mount_of_memory_until_it_is_removed(run: Path):
    if run_directory._is_in_memory(run.parent):
        pytest.skip("this machine's temporary files are in memory")
    assert alone(lives, run) == [["tmpfs"], ["tmpfs"], []]


def test_in_memory_nothing_is_mounted(run: Path):
    assert alone(lives, run, "tmpfs") == [[], [], []]
