"""A cgroup is removed when its processes have ended, and who waits for that does not do so all the time."""

import asyncio
from pathlib import Path

import pytest

from martlet.drivers.cell import empty
from martlet.sandbox.cgroups import GroupV1

pytestmark = pytest.mark.anyio


class Dying(GroupV1):
    """A group with processes that take a while to end once they were told to."""

    def __init__(self, directory: Path, seconds: float) -> None:
        super().__init__({"pids": directory})
        self._seconds = seconds
        self._end: float | None = None
        self.told = 0

    def remove(self) -> bool:
        return self._end is not None and asyncio.get_running_loop().time() >= self._end

    def kill(self) -> None:
        self.told += 1
        self._end = self._end or asyncio.get_running_loop().time() + self._seconds


async def test_processes_that_take_long_to_end_are_told_so_ever_less_often(tmp_path):
    slow = Dying(tmp_path, seconds=0.8)

    await empty(slow)

    assert slow.remove()
    assert 0 < slow.told < 40


async def test_an_empty_group_is_removed_and_nobody_told(tmp_path):
    group = GroupV1({"pids": tmp_path / "group"})
    group.create()

    await empty(group)

    assert not (tmp_path / "group").exists()
