"""While an instance computes, a process wakes on its core again and again; it ends with whoever has it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from martlet.drivers import beat
from martlet.drivers.beat import Beat
from martlet.sandbox.cgroups import Group
from martlet.sandbox.hierarchies import usable_group
from tests.driver_rigs import LANE, Rig, eventually, process_rig
from tests.processes import lives, status_of

pytestmark = [pytest.mark.anyio, pytest.mark.root]

WAKES = 20
"""So often has it woken since it was told to."""
SECONDS = 5.0

OWNER = """
import os, signal, sys
from martlet.drivers.beat import Beat
from martlet.sandbox.hierarchies import usable_group
kept = Beat(usable_group().below(sys.argv[1]))
kept.go_on()
print(kept._process.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def group() -> Iterator[Group]:
    top = usable_group()
    assert top is not None
    made = top.below(f"martlet-beat-{LANE}")
    yield made
    made.empty(time.monotonic() + SECONDS)


@pytest.fixture
async def kept(group: Group, monkeypatch) -> AsyncIterator[Beat]:
    monkeypatch.setattr(beat, "LINGER", 0.05)
    made = Beat(group)
    yield made
    made.close()


@pytest.fixture
def one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def member(group: Group) -> int:
    """Returns the one process of a group; 0: there is none that is in each of its directories."""
    found = {
        int(pid) for place in group.directories for pid in Path(place, "cgroup.procs").read_text().split()
    }
    assert len(found) <= 1
    pid = found.pop() if found else 0
    return pid if pid and group.holds(pid) else 0


def waits(pid: int) -> int:
    """Returns how often a process has waited."""
    return int(status_of(pid)["voluntary_ctxt_switches"])


async def beats(pid: int) -> bool:
    """Returns whether it does, as soon as that is known."""
    before = waits(pid)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            while waits(pid) < before + WAKES:
                await asyncio.sleep(0.01)
    return waits(pid) >= before + WAKES


async def ends(pid: int) -> None:
    await eventually(lambda: not lives(pid), "it has not ended")


async def begun(group: Group) -> int:
    return await eventually(lambda: Path(group.directories[0]).exists() and member(group), "it has not begun")


async def test_it_beats_among_those_who_compute_until_it_is_stopped(kept: Beat, group: Group):
    kept.go_on()
    pid = await begun(group)
    assert await beats(pid)

    kept.stop()
    await ends(pid)
    assert not [place for place in group.directories if Path(place).exists()]

    kept.go_on()
    assert await beats(await begun(group))


async def test_it_goes_on_where_somebody_else_computes_soon(kept: Beat, group: Group, monkeypatch):
    monkeypatch.setattr(beat, "LINGER", 0.3)
    kept.go_on()
    pid = await begun(group)

    kept.stop()
    kept.go_on()
    await asyncio.sleep(0.4)

    assert await beats(pid)


async def test_it_is_started_anew_where_it_was_killed(kept: Beat, group: Group):
    kept.go_on()
    pid = await begun(group)
    os.kill(pid, signal.SIGKILL)
    await ends(pid)
    kept.stop()
    await asyncio.sleep(0.1)

    kept.go_on()

    assert await beats(await begun(group))


async def test_it_ends_when_it_is_closed(kept: Beat, group: Group):
    kept.go_on()
    pid = await begun(group)

    kept.close()

    assert not lives(pid)


async def test_it_ends_with_the_process_that_has_it(group: Group):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, Path(group.directories[0]).name], stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    with owner:
        pid = int(owner.stdout.readline())
        assert lives(pid)

        owner.kill()

    await eventually(lambda: not lives(pid), "it has not ended")


def test_it_is_of_use_where_a_lane_is_kept_on_one_core(one_core):
    assert Beat.of_use()


@pytest.mark.skipif(os.cpu_count() == 1, reason="this machine has one core")
def test_it_is_of_no_use_where_others_can_take_another_core():
    assert not Beat.of_use()


class TestADriver:
    """Gives turns while one of its cells gives way."""

    @pytest.fixture
    async def rig(self, tmp_path: Path, one_core, monkeypatch) -> AsyncIterator[Rig]:
        monkeypatch.setattr(beat, "LINGER", 0.05)
        async with process_rig(tmp_path) as rig:
            yield rig

    @staticmethod
    def group_of(rig: Rig) -> Group:
        group = rig.driver._group
        assert group is not None
        return group.below("beat")

    async def test_it_beats_while_a_cell_gives_way(self, rig: Rig):
        first, second = await rig.start(), await rig.start()
        group = self.group_of(rig)

        for cell in (first, second):
            rig.driver.give_way(cell, gives=True)
        pid = await begun(group)
        rig.driver.give_way(first, gives=False)
        await asyncio.sleep(0.1)
        assert await beats(pid)

        rig.driver.give_way(second, gives=False)
        await ends(pid)

    async def test_it_stops_where_the_cell_is_no_more(self, rig: Rig):
        cell = await rig.start()
        rig.driver.give_way(cell, gives=True)
        pid = await begun(self.group_of(rig))

        await rig.driver.destroy(cell)

        await ends(pid)

    async def test_what_a_life_that_was_killed_has_left_of_it_is_swept_away(self, rig: Rig):
        group = self.group_of(rig)
        group.create()

        await rig.driver.sweep()

        assert not [place for place in group.directories if Path(place).exists()]

    async def test_it_is_not_swept_away(self, rig: Rig):
        rig.driver.give_way(await rig.start(), gives=True)
        pid = await begun(self.group_of(rig))

        await rig.driver.sweep()

        assert lives(pid)
