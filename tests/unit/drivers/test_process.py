"""The life of a process driver: what dies with what, what is left, and what is said when something fails."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from martlet.drivers import remains
from martlet.drivers.driver import DriverError, Handle, LoadFailed, NotStarted
from martlet.drivers.place import Place
from martlet.drivers.process import ProcessDriver
from martlet.http.fetch import FetchError
from tests.driver_rigs import LANE, Rig, ask, eventually, process_rig
from tests.processes import lives, status_of

pytestmark = [pytest.mark.anyio, pytest.mark.root]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with process_rig(tmp_path) as rig:
        yield rig


def children(of: int) -> list[int]:
    """Returns the processes whose parent is this one."""
    with open(f"/proc/{of}/task/{of}/children") as listed:
        return [int(pid) for pid in listed.read().split()]


def groups() -> set[str]:
    """Returns every cgroup of the rigs of this test run."""
    # `walk` overlooks what others remove meanwhile; `glob` does not.
    found = [Path(folder, name) for folder, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    return {str(path) for path in found if path.match(f"martlet-*-lane-{LANE}-process")}


def zygote_of(pid: int) -> int:
    return int(status_of(pid)["PPid"])


async def test_each_cell_has_a_network_namespace_of_its_own_also_one_that_was_made_ahead(rig: Rig):
    def namespaces(pid: int) -> set[str]:
        """Returns the network namespaces that a process has, or has a descriptor of."""
        links = [f"/proc/{pid}/ns/net", *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))]
        return {found for link in links if (found := os.readlink(link)).startswith("net:")}

    seen = {os.readlink("/proc/self/ns/net")}
    ahead = set()
    for count in range(2, 5):
        pid = (await rig.start()).pid
        assert pid is not None
        seen |= (own := namespaces(pid))
        assert len(seen) == count
        assert not ahead or own == ahead
        made = partial(lambda of, known: namespaces(of) - known, zygote_of(pid), frozenset(seen))
        ahead = await eventually(made, "none was made")


async def test_a_cell_has_a_user_of_its_own_before_it_has_code_and_only_the_power_to_mount_that(rig: Rig):
    cell = await rig.start()
    assert cell.pid is not None
    before = status_of(cell.pid)
    assert before["Uid"].split() == before["Gid"].split() == [str(cell.state["identity"])] * 4
    assert [int(before[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd")] == [
        0,
        1 << 21,
        1 << 21,
        0,
    ]
    await rig.specialise(cell, "echo")
    after = status_of(cell.pid)
    assert after["Uid"] == before["Uid"]
    assert [int(after[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd")] == [0, 0, 0, 0]


async def test_a_zygote_is_behind_the_filter_that_its_cells_have_from_birth_and_an_instance_behind_both(
    rig: Rig,
):
    def filters(pid: int) -> tuple[str, str, int]:
        status = status_of(pid)
        return status["NoNewPrivs"].strip(), status["Seccomp"].strip(), int(status["Seccomp_filters"])

    cell = await rig.start()
    assert cell.pid is not None
    assert filters(zygote_of(cell.pid)) == filters(cell.pid) == ("1", "2", 1)
    await rig.specialise(cell, "echo")
    assert filters(cell.pid) == ("1", "2", 2)


async def test_a_cell_that_has_practised_sees_the_code_that_it_is_given(rig: Rig):
    cell = await rig.start()
    assert cell.pid is not None

    def stat() -> list[str]:
        return Path(f"/proc/{cell.pid}/stat").read_text().rpartition(")")[2].split()

    state, faults = 0, 7
    before = int(stat()[faults])
    await eventually(
        lambda: int(stat()[faults]) > before + 50 and stat()[state] == "S", "it did not practise"
    )
    source = """
        import os, pathlib

        def handle(request):
            return [os.uname().nodename, sorted(os.listdir("/function")), os.getcwd()]
    """
    await rig.specialise(cell, "seeing", source=dedent(source))
    assert json.loads(await ask(cell)) == ["seeing", ["handler.py"], "/function"]


async def test_instances_of_one_zygote_draw_their_own_numbers_and_have_locks_and_threads_that_work(rig: Rig):
    source = """
        import logging, os, random, threading

        def handle(request):
            drawn = []
            thread = threading.Thread(target=lambda: drawn.append(random.random()))
            thread.start()
            thread.join()
            logging.info("drawn")
            child = os.fork()
            if child == 0:
                os._exit(threading.main_thread() is not threading.current_thread())
            return [*drawn, os.waitpid(child, 0)[1]]
    """
    answers = [json.loads(await ask(await rig.instance("threads", source=dedent(source)))) for _ in range(3)]
    assert len({drawn for drawn, _ in answers}) == 3
    assert [ended for _, ended in answers] == [0, 0, 0]


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


async def test_an_urgent_cell_whose_sandbox_fails_is_not_the_fault_of_the_code(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    closed_doors = lambda group: [os.open("/dev/null", os.O_RDONLY)]  # noqa: E731
    monkeypatch.setattr("martlet.sandbox.cgroups.Group.open_doors", closed_doors)
    spec = replace(rig.spec("broken"), urgent=True)

    with pytest.raises(DriverError, match=r"no cell could be started: .*Bad file descriptor") as caught:
        await rig.specialise(await rig.driver.start(spec), "echo")

    assert not isinstance(caught.value, LoadFailed)


async def test_a_zygote_that_dies_under_an_urgent_cell_is_not_the_fault_of_the_code(rig: Rig):
    handle = await rig.driver.identify(await rig.driver.start(replace(rig.spec("urgent"), urgent=True)))
    assert handle.pid is not None
    loading = asyncio.create_task(rig.specialise(handle, "slow"))
    await asyncio.sleep(0.2)
    os.kill(zygote_of(handle.pid), signal.SIGKILL)

    with pytest.raises(NotStarted, match="the zygote is gone"):
        await loading


async def test_nothing_is_left_of_a_place_that_cannot_be_made(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError("no limits here")

    await rig.start()
    before = {path for group in groups() for path in Path(group).iterdir()}
    spec = rig.spec("ahead")
    monkeypatch.setattr(Place, "limit", refuse)

    with pytest.raises(DriverError, match="no limits here"):
        await rig.driver.prepare(spec.id, spec.directory)

    assert not spec.directory.exists()
    assert {path for group in groups() for path in Path(group).iterdir()} == before


async def test_nothing_is_left_of_many_lives(tmp_path: Path):
    mounts = Path("/proc/self/mountinfo")

    def inventory() -> dict[str, object]:
        return {
            "processes": set(children(os.getpid())),
            "descriptors": len(os.listdir("/proc/self/fd")),
            # Only its own: engines that other tests run mount for all the machine to see.
            "mounts": [mount for mount in mounts.read_text().splitlines() if str(tmp_path) in mount],
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
    handle = await rig.start(urgent=number in (3, 7))
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
    if number == 6:
        ahead = rig.spec(f"ahead-of-{handle.id}")  # and is never asked for
        await rig.driver.prepare(ahead.id, ahead.directory)
    if number != 7:  # which is left to `close`
        await rig.driver.destroy(handle)


PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from textwrap import dedent
sys.path.insert(0, sys.argv[2])
from tests.driver_rigs import process_rig

async def main():
    async with process_rig(Path(sys.argv[1]), int(sys.argv[3]), lease=float(sys.argv[4])) as rig:
        handles = [await rig.start(), await rig.instance("echo"), await rig.instance("hang")]
        ahead = rig.spec("ahead")
        await rig.driver.prepare(ahead.id, ahead.directory)
        print(json.dumps([handle.to_json() for handle in handles]), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


class KilledLane:
    """A lane that was killed, with a cell and two instances.

    Attributes:
        processes: those it had.
        next_life: a driver for the same lane, not open yet.
    """

    def __init__(self, folder: Path, lease: float) -> None:
        arguments = [sys.executable, "-c", PROGRAM, folder, Path(__file__).parents[3], str(LANE), str(lease)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as lane:
            assert lane.stdout is not None
            handles = [Handle.from_json(document) for document in json.loads(lane.stdout.readline())]
            self.cell, self.echo, self.hang = handles
            self.zygote = zygote_of(self.cell.pid or 0)
            lane.kill()
        self.processes = [self.zygote, *(handle.pid or 0 for handle in handles)]
        self.run = folder / "run"
        self.exits: list[tuple[str, int]] = []
        self.next_life = ProcessDriver(LANE, folder / "packages", self.run)

    async def open(self) -> ProcessDriver:
        await self.next_life.open(lambda *exit: self.exits.append(exit))
        return self.next_life


@pytest.fixture
async def make_killed_lane(tmp_path: Path) -> AsyncIterator[Callable[[float], KilledLane]]:
    made: list[KilledLane] = []

    def make(lease: float) -> KilledLane:
        made.append(KilledLane(tmp_path, lease))
        return made[-1]

    yield make
    for killed in made:
        await killed.next_life.close()
        await remains.sweep(killed.run)
        assert not any(map(lives, killed.processes))
        assert not groups()


MakeKilledLane = Callable[[float], KilledLane]


async def test_a_zygote_to_which_no_lane_comes_back_ends_and_takes_everything_along(
    make_killed_lane: MakeKilledLane,
):
    killed = make_killed_lane(0.3)

    await eventually(lambda: not any(map(lives, killed.processes)), "all have ended")
    await eventually(lambda: not groups(), "their cgroups are gone")


async def test_the_next_life_of_a_lane_takes_over_the_instances_of_a_killed_one(
    make_killed_lane: MakeKilledLane,
):
    killed = make_killed_lane(60)
    driver = await killed.open()

    assert await driver.recover(killed.echo)
    await driver.sweep()

    assert await ask(killed.echo, "still here") == b'"still here"'
    stats = await driver.stats(killed.echo)
    assert stats is not None
    assert stats.memory_bytes > 0
    assert killed.echo.pid is not None
    os.kill(killed.echo.pid, signal.SIGKILL)
    await eventually(lambda: killed.exits, "the exit is reported")
    assert killed.exits == [(killed.echo.id, -signal.SIGKILL)]
    await driver.destroy(killed.echo)
    assert not Path(killed.echo.socket).parent.exists()


async def test_what_is_not_taken_over_is_swept(make_killed_lane: MakeKilledLane):
    killed = make_killed_lane(60)
    driver = await killed.open()
    assert await driver.recover(killed.echo)

    await driver.sweep()

    assert not lives(killed.cell.pid or 0)
    assert not lives(killed.hang.pid or 0)
    assert lives(killed.echo.pid or 0)
    left = {path.name for group in groups() for path in Path(group).iterdir() if path.is_dir()}
    assert left == {killed.echo.id}
    await driver.destroy(killed.hang)
    assert not Path(killed.hang.socket).parent.exists()


async def test_a_zygote_serves_the_next_life_of_its_lane(make_killed_lane: MakeKilledLane, tmp_path: Path):
    lease = 8.0  # in which the next life comes on a busy machine too
    killed = make_killed_lane(lease)
    rig = Rig(await killed.open(), tmp_path)
    assert await rig.driver.recover(killed.echo)
    await rig.driver.sweep()

    fresh = await rig.driver.start(rig.spec("fresh"))
    await rig.specialise(fresh, "talk")

    assert zygote_of(fresh.pid or 0) == killed.zygote
    assert fresh.state["identity"] != killed.echo.state["identity"]
    await asyncio.sleep(lease + 0.1)  # which is over as soon as there is a lane
    assert await ask(fresh) == b"done"
    assert await ask(killed.echo, 1) == b"1"


async def test_an_instance_that_ended_without_its_lane_is_not_recovered(make_killed_lane: MakeKilledLane):
    killed = make_killed_lane(60)
    os.kill(killed.echo.pid or 0, signal.SIGKILL)
    await eventually(lambda: not lives(killed.echo.pid or 0), "it has ended")
    driver = await killed.open()

    assert not await driver.recover(killed.echo)
    assert await driver.recover(killed.hang)
    assert killed.exits == []


async def test_a_handle_that_is_not_what_lives_is_not_recovered(make_killed_lane: MakeKilledLane):
    killed = make_killed_lane(60)
    driver = await killed.open()

    assert not await driver.recover(replace(killed.echo, pid=os.getpid()))
    assert not await driver.recover(replace(killed.echo, runtime="cobol"))
    with pytest.raises(DriverError, match="user id"):
        await driver.recover(replace(killed.echo, state={"identity": 0}))
    assert await driver.recover(killed.echo)


async def test_a_platform_that_starts_ends_what_waits_for_the_lanes_of_its_former_life(
    make_killed_lane: MakeKilledLane,
):
    killed = make_killed_lane(60)
    assert groups()

    await remains.sweep(killed.run)

    assert not any(map(lives, killed.processes))
    assert not groups()


async def test_lanes_of_other_platforms_are_left_alone(rig: Rig, tmp_path: Path):
    cell = await rig.start()
    assert cell.pid is not None
    other = ProcessDriver(LANE, tmp_path / "packages", tmp_path / "another-run")

    await other.open(lambda *_: None)
    await other.sweep()
    await other.close()

    assert lives(cell.pid)


@pytest.mark.parametrize("has_code", [False, True], ids=["waiting", "with code"])
async def test_a_cell_dies_with_its_zygote_while_nobody_looks(rig: Rig, has_code: bool):
    cell = await rig.instance("echo") if has_code else await rig.start()
    assert cell.pid is not None
    zygote = zygote_of(cell.pid)

    os.kill(zygote, signal.SIGKILL)

    deadline = time.monotonic() + 10
    while lives(cell.pid):  # nothing is awaited here: the driver cannot have ended it
        assert time.monotonic() < deadline, "it outlives its zygote"
        time.sleep(0.01)


async def test_an_instance_holds_nothing_of_the_zygote_and_the_lane(rig: Rig):
    handle = await rig.instance("echo")

    held = [os.readlink(path) for path in Path(f"/proc/{handle.pid}/fd").iterdir()]

    log = str(handle.log)
    assert sorted(place for place in held if not place.startswith("socket:")) == sorted(
        ["/dev/null", log, log]
    )
    assert 1 <= sum(place.startswith("socket:") for place in held) <= 2  # it listens, and was given its code
