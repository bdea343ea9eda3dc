"""The life of a process driver: what dies with what, what is left, and what is said when something fails."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from martlet.drivers.driver import DriverError, LoadFailed
from martlet.drivers.process import ProcessDriver
from martlet.http.fetch import FetchError
from tests.alone import status_of
from tests.driver_rigs import LANE, Rig, ask, eventually, process_rig

pytestmark = [pytest.mark.anyio, pytest.mark.root]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path) as rig:
        yield rig


def children(of: int) -> list[int]:
    """Returns the processes whose parent is this one."""
    with open(f"/proc/{of}/task/{of}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


def lives(pid: int) -> bool:
    try:
        return status_of(pid)["State"][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def groups() -> set[str]:
    """Returns every cgroup of the rigs of this test run."""
    return {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/martlet-*-lane-{LANE}")}


def zygote_of(pid: int) -> int:
    return int(status_of(pid)["PPid"])


async def test_cells_die_with_their_zygote_and_the_next_start_has_a_new_one(rig: Rig):
    cell, instance = await rig.start(), await rig.instance("echo")
    assert cell.pid is not None
    old = zygote_of(cell.pid)

    os.kill(old, signal.SIGKILL)

    await eventually(lambda: len(rig.exits) == 2, "both exits are reported")
    assert set(rig.exits) == {(cell.id, -signal.SIGKILL), (instance.id, -signal.SIGKILL)}
    fresh = await rig.instance("echo")
    assert fresh.pid is not None
    assert zygote_of(fresh.pid) != old
    assert await ask(fresh, 1) == b"1"


async def test_a_request_to_an_instance_whose_zygote_dies_breaks_at_once(rig: Rig):
    handle = await rig.instance("hang")
    assert handle.pid is not None
    request = asyncio.create_task(ask(handle))
    await asyncio.sleep(0.01)

    os.kill(zygote_of(handle.pid), signal.SIGKILL)

    with pytest.raises(FetchError):
        await request


async def test_cells_asked_for_at_once_share_one_zygote(rig: Rig):
    handles = await asyncio.gather(*(rig.start() for _ in range(5)))

    assert len({zygote_of(handle.pid) for handle in handles if handle.pid}) == 1


async def test_daemons_that_an_instance_left_behind_die_with_it(rig: Rig):
    source = (
        "import os, time\n"
        "def handle(request):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        os._exit(0)\n"
        "    return 'left'\n"
    )
    handle = await rig.instance("daemons", source=source)
    await ask(handle)
    assert handle.pid is not None
    (daemon,) = await eventually(lambda: children(handle.pid or 0)[-1:], "the daemon was adopted")

    await rig.driver.destroy(handle)

    assert not lives(daemon)


async def test_code_that_takes_too_much_memory_to_load_says_so(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match="memory limit of 32Mi") as caught:
        await rig.specialise(handle, "greedy", source="x = bytearray(1 << 30)", memory="32Mi")

    assert caught.value.kind == "OutOfMemory"


async def test_code_that_ends_the_process_while_it_loads_says_so(rig: Rig):
    handle = await rig.start()

    with pytest.raises(LoadFailed, match="ended with exit code 5") as caught:
        await rig.specialise(handle, "quitter", source="import os; os._exit(5)")

    assert caught.value.kind == "Crashed"


async def test_code_outside_of_the_packages_is_refused(rig: Rig):
    handle = await rig.start()
    rig.packages = rig.folder / "elsewhere"

    with pytest.raises(DriverError, match="not in the folder of packages"):
        await rig.specialise(handle, "echo")


async def test_an_unknown_runtime_is_refused_by_name(rig: Rig):
    spec = rig.spec("cell")

    with pytest.raises(DriverError, match=r"cobol.*python3"):
        await rig.driver.start(type(spec)(spec.id, "cobol", spec.network, spec.directory))

    assert not spec.directory.exists()


async def test_a_zygote_that_cannot_be_made_says_why_and_the_next_one_may_do(rig: Rig):
    shutil.rmtree(rig.packages)

    with pytest.raises(DriverError, match=r"packages.*No such file"):
        await rig.start()

    rig.packages.mkdir()
    assert (await rig.start()).pid


async def test_a_cell_whose_sandbox_fails_says_why(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    closed_doors = lambda group: [os.open("/dev/null", os.O_RDONLY)]  # noqa: E731
    monkeypatch.setattr("martlet.sandbox.cgroups.Group.open_doors", closed_doors)
    spec = rig.spec("broken")

    with pytest.raises(DriverError, match=r"no cell could be started: .*Bad file descriptor"):
        await rig.driver.start(spec)

    assert not spec.directory.exists()
    assert rig.exits == []


async def test_nothing_is_left_of_many_lives(tmp_path: Path):
    def inventory() -> dict[str, object]:
        return {
            "processes": set(children(os.getpid())),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "cgroups": groups(),
            "namespaces": {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
            "files": [
                str(path) for path in (tmp_path / "run").rglob("*") if not path.name.startswith("lane-")
            ],
        }

    (tmp_path / "run").mkdir()
    async with process_rig(tmp_path) as rig:
        await asyncio.gather(*(one_life(rig, number) for number in range(8)))
        await rig.driver.close()
    before = inventory()

    (tmp_path / "again").mkdir()
    shutil.rmtree(tmp_path / "packages")
    async with process_rig(tmp_path) as rig:
        for _ in range(3):
            await asyncio.gather(*(one_life(rig, number) for number in range(8)))

    assert inventory() == before


async def one_life(rig: Rig, number: int) -> None:
    """One of the ways in which a cell can come and go."""
    handle = await rig.start()
    if number % 4 == 0:
        with pytest.raises(LoadFailed):
            await rig.specialise(handle, "unloadable")
    elif number % 4 == 1:
        await rig.specialise(handle, "crash")
        with pytest.raises(FetchError):
            await ask(handle)
    elif number % 4 == 2:
        await rig.specialise(handle, "echo")
        await rig.driver.stop(handle, grace=5)
    if number != 7:  # which is left to `close`
        await rig.driver.destroy(handle)


PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.driver_rigs import process_rig

async def main():
    async with process_rig(Path(sys.argv[1]), int(sys.argv[3])) as rig:
        handles = [await rig.start(), await rig.instance("echo"), await rig.instance("hang")]
        print(*(handle.pid for handle in handles), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
async def killed_lane(tmp_path: Path) -> AsyncIterator[list[int]]:
    """The processes that a lane had when it was killed."""
    arguments = [sys.executable, "-c", PROGRAM, tmp_path, Path(__file__).parents[3], str(LANE)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as lane:
        assert lane.stdout is not None
        cells = [int(pid) for pid in lane.stdout.readline().split()]
        processes = [*cells, zygote_of(cells[0])]
        lane.kill()
    yield processes
    next_life = ProcessDriver(LANE, tmp_path / "packages", tmp_path / "run")
    await next_life.open(lambda *_: None)
    await next_life.close()


async def test_all_processes_die_with_a_killed_lane(killed_lane: list[int]):
    assert len(killed_lane) == 4

    await eventually(lambda: not any(map(lives, killed_lane)), "all have ended")


async def test_the_next_life_of_a_lane_sweeps_what_a_killed_one_left(killed_lane: list[int], tmp_path: Path):
    assert groups()
    driver = ProcessDriver(LANE, tmp_path / "packages", tmp_path / "run")

    await driver.open(lambda *_: None)

    assert not groups()
    await driver.close()


async def test_opening_ends_processes_that_outlived_a_lane(rig: Rig, tmp_path: Path):
    cell = await rig.start()
    assert cell.pid is not None
    same_lane = ProcessDriver(LANE, tmp_path / "packages", tmp_path / "run")

    await same_lane.open(lambda *_: None)

    assert not lives(cell.pid)
    await same_lane.close()


async def test_lanes_of_other_platforms_are_left_alone(rig: Rig, tmp_path: Path):
    cell = await rig.start()
    assert cell.pid is not None
    other = ProcessDriver(LANE, tmp_path / "packages", tmp_path / "another-run")

    await other.open(lambda *_: None)
    await other.close()

    assert lives(cell.pid)
