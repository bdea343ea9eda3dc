"""Cells that are handed out before their zygote has said that they live, and what becomes of those that never do."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from martlet.drivers.driver import DriverError, Handle, NotStarted
from martlet.drivers.local import LocalDriver
from martlet.drivers.zygote import Zygote
from martlet.sandbox import channel
from tests.driver_rigs import SECONDS, Rig, ask, eventually, process_rig
from tests.processes import lives, status_of

pytestmark = [pytest.mark.anyio, pytest.mark.root]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path) as rig:
        yield rig


def driver_of(rig: Rig) -> LocalDriver[Zygote]:
    assert isinstance(rig.driver, LocalDriver)
    return rig.driver


async def start(rig: Rig, name: str) -> Handle:
    return await rig.driver.start(replace(rig.spec(name), urgent=True))


def knows(rig: Rig, handle: Handle) -> bool:
    """Whether the lane has heard which process it is."""
    return driver_of(rig)._cells[handle.id].pid is not None


def left(rig: Rig) -> list[object]:
    """Returns what the driver, its zygotes and the host have for cells."""
    driver = driver_of(rig)
    parents = [parent.result() for parent in driver._parents.values()]
    return [
        *driver._cells,
        *driver._identities._held,
        *(cell for parent in parents if parent.alive for cell in (*parent._cells, *parent._asked)),
        *(driver._group.names() if driver._group is not None else ()),
        *(path for path in rig.run.iterdir() if path.name.startswith("urgent")),
    ]


async def forked_ahead(rig: Rig) -> int:
    """Starts a cell; returns the process that its zygote has forked ahead of the next one."""
    first = await start(rig, "first")
    await rig.specialise(first, "echo")
    pid = (await rig.driver.identify(first)).pid
    zygote = status_of(pid or 0)["PPid"]

    def others() -> list[int]:
        with open(f"/proc/{zygote}/task/{zygote}/children") as listed:
            return [child for child in map(int, listed.read().split()) if child != pid]

    (successor,) = await eventually(others, "another one is forked ahead")
    assert isinstance(successor, int)
    return successor


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def silent_zygote(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[socket.socket]:
    """Gives the driver of a rig a zygote that says nothing but what a test sends; lends the test's end of it."""
    at = rig.folder / "silent"
    with channel.listen(at) as listener, subprocess.Popen(["sleep", "600"]) as process:
        finding = asyncio.create_task(Zygote.find(at, driver_of(rig)._ended))
        await asyncio.sleep(0)
        with channel.accept(listener) as end:
            pidfd = os.pidfd_open(process.pid)
            channel.send(end, {"event": "ready"}, [pidfd])
            os.close(pidfd)
            zygote = await finding

            async def this_one(*_: object) -> Zygote | None:
                return zygote

            monkeypatch.setattr(rig.driver, "_start_parent", this_one)
            yield end
        process.kill()


async def test_a_lone_one_has_its_code_before_the_zygote_goes_on(rig: Rig):
    await start(rig, "first")  # whose zygote begins
    deadline, count = time.monotonic() + SECONDS, 0
    while True:
        count += 1
        handle = await start(rig, f"urgent-{count}")
        await rig.specialise(handle, "echo")
        if not knows(rig, handle):
            break
        await rig.driver.destroy(handle)  # it took long: the machine is busy
        assert time.monotonic() < deadline, "none was first"

    assert handle.pid is None
    known = await rig.driver.identify(handle)
    assert known == replace(handle, pid=known.pid)
    assert status_of(known.pid or 0)["Uid"].split()[0] == str(handle.state["identity"])
    assert await ask(handle, 1) == b"1"


async def test_one_is_a_process_that_was_there_before(rig: Rig):
    successor = await forked_ahead(rig)

    second = await start(rig, "second")
    await rig.specialise(second, "echo")

    assert (await rig.driver.identify(second)).pid == successor
    assert await ask(second, 2) == b"2"
    assert status_of(successor)["Uid"].split()[0] == str(second.state["identity"])


async def test_a_successor_that_was_killed_delays_nobody(rig: Rig):
    successor = await forked_ahead(rig)
    os.kill(successor, signal.SIGKILL)
    await eventually(lambda: not lives(successor), "it has ended")

    second = await start(rig, "second")
    await rig.specialise(second, "echo")

    assert (await rig.driver.identify(second)).pid != successor
    assert await ask(second, 2) == b"2"


@pytest.mark.parametrize(
    ("said", "why"), [("refused", "the zygote refused: no more processes"), ("nothing", "the zygote is gone")]
)
async def test_one_that_never_comes_to_be_is_not_the_fault_of_the_code_and_leaves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, said: str, why: str
):
    before = descriptors()
    async with silent_zygote(rig, monkeypatch) as end:
        handle = await start(rig, "urgent")
        loading = asyncio.create_task(rig.specialise(handle, "echo"))
        request = channel.receive(end)
        assert request is not None
        message, lent = request
        assert (message["op"], message["id"], message["urgent"]) == ("fork", "urgent", True)
        if said == "refused":
            channel.send(end, {"event": "refused", "id": "urgent", "error": "no more processes"})
        else:
            end.close()
        for descriptor in lent:
            os.close(descriptor)

        with pytest.raises(NotStarted, match=why):
            await loading
        with pytest.raises(DriverError):
            await rig.driver.identify(handle)
        await rig.driver.destroy(handle)
        assert left(rig) == []
        for parent in driver_of(rig)._parents.values():
            await parent.result().close()
    assert descriptors() == before


async def test_one_that_is_destroyed_before_it_is_forked_ends_when_it_is(rig: Rig):
    zygote = int(status_of((await rig.start()).pid or 0)["PPid"])
    await rig.clear()
    heard: list[int] = []
    os.kill(zygote, signal.SIGSTOP)
    try:
        handle = await start(rig, "urgent")
        forking = driver_of(rig)._cells[handle.id].forking
        assert forking is not None
        forking.add_done_callback(lambda told: heard.append(told.result() or 0))
        destroying = asyncio.create_task(rig.driver.destroy(handle))
        await asyncio.sleep(0.05)
    finally:
        os.kill(zygote, signal.SIGCONT)
    await destroying

    assert left(rig) == []
    assert rig.exits == []
    await eventually(lambda: heard and not lives(heard[0]), "it has ended")
