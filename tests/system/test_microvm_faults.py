"""Whatever fails below microVMs: who asks is told, another machine takes the place, and nothing is left of it."""

import asyncio
import errno
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from martlet.drivers.driver import DriverError, LoadFailed
from martlet.http.fetch import FetchError, fetch
from martlet.microvm import fork_server, qemu_machine
from martlet.microvm.control import CONTROL, LINKS, LOG
from martlet.microvm.templates import Templates
from martlet.sandbox import landlock, syscalls
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.tracing import Stopped
from tests.alone import alone
from tests.conftest import MICROVMS, require
from tests.driver_rigs import LANE, SECONDS, ask, eventually, microvm_rig, saved_machine
from tests.monitors import fork_server_of, monitor_of, parent_of
from tests.processes import lives, owned, status_of
from tests.system.holdings import holdings

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

PIDFD_GETFD = 438
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts")
USER = ("Uid", "Gid")
WALLS = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "Groups", "Umask", "SigIgn", "Cpus_allowed")
POWER = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
EVENTS = "anon_inode:[eventfd]"
SHARED = {"/.template/root", "/memfd:memory (deleted)", "/dev/null", "anon_inode:[signalfd]"}
"""What machines have in common that were forked: nothing that they write to."""
ENDED, LIES = b"the virtual machine has ended", b"the virtual machine says what no machine of Martlet's says"
BUILD = """
import sys
from pathlib import Path
from martlet.drivers.microvm import describe
from martlet.errors import Unavailable
from martlet.microvm.templates import Templates
from martlet.runtimes import Catalogue
try:
    Templates(Path(sys.argv[1]), print).of(Catalogue.load().resolve("python"), describe)
except Unavailable as error:
    print(error.detail)
"""
DRAWS = """
import os, random, secrets, uuid
held = []
def handle(request):
    held.append(request.get_json())
    with open("/tmp/held", "a+") as file:
        file.write(held[-1])
        file.seek(0)
        return [[os.urandom(8).hex(), random.random(), secrets.token_hex(), str(uuid.uuid1())], held, file.read()]
"""


class Machine:
    """The processes of an instance, and the ends of what is between them."""

    def __init__(self, handle):
        self.handle, self.warden = handle, handle.pid
        self.monitor = monitor_of(self.warden)

    def guests_end(self, channel):
        """Returns what the monitor writes to when the guest writes to this channel."""
        return _taken(self.monitor, qemu_machine.CHANNELS[channel])

    def control(self):
        """Returns what the warden speaks to the agent by: its socket that was made with that of the monitor."""
        end = _inode(self.monitor, qemu_machine.CHANNELS[CONTROL])
        inodes = {}
        for number in os.listdir(f"/proc/{self.warden}/fd"):
            with suppress(OSError):  # the connection that brought the code may be closed just now
                if (inode := _inode(self.warden, number)) is not None:
                    inodes[number] = inode
        return _taken(self.warden, int(min(inodes, key=lambda number: abs(inodes[number] - end))))


def _inode(pid, number):
    """Returns that of a socket; None of anything else."""
    kind, _, inode = os.readlink(f"/proc/{pid}/fd/{number}").partition(":")
    return int(inode[1:-1]) if kind == "socket" else None


def _taken(pid, number):
    """Returns a descriptor of another process, as a socket."""
    process = os.pidfd_open(pid)
    try:
        return socket.socket(fileno=syscalls.call(PIDFD_GETFD, process, number, 0))
    finally:
        os.close(process)


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def rig():
    with tempfile.TemporaryDirectory(prefix="martlet-") as folder:
        async with microvm_rig(Path(folder)) as rig:
            yield rig
        await eventually(lambda: not any(held(rig).values()), "nothing is held any more")


def held(rig):
    settings = SimpleNamespace(run_directory=rig.run)
    counts = holdings(SimpleNamespace(settings=settings, data=rig.folder))
    return counts | {"cells": len(list(rig.run.glob("cell-*")))}


@pytest.fixture(scope="module")
async def at_rest(rig):
    """What the driver holds where there is no cell."""
    await rig.driver.destroy(await rig.instance("echo"))
    looks = []

    def unchanged():
        looks.append(held(rig))
        return looks[-10:] == [looks[-1]] * 10 and looks[-1]["processes"] == 1

    await eventually(unchanged, "only the zygote is left")
    assert looks[-1]["memory files"] == 2
    return looks[-1]


@pytest.fixture(autouse=True)
async def unharmed(rig, at_rest):
    """Whatever was done: nothing is left of it. The next test shows that other machines do their work."""
    rig.exits.clear()
    yield
    await rig.clear()
    await eventually(lambda: held(rig) == at_rest, f"{at_rest} is held again")


async def test_a_monitor_that_is_killed_ends_its_request_and_is_reported(rig):
    handle = await rig.instance("hang")
    request = asyncio.create_task(ask(handle))
    log = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)
    await asyncio.sleep(0)

    os.kill(Machine(handle).monitor, signal.SIGKILL)

    with pytest.raises(FetchError):
        await request
    await ended(rig, handle, log, ENDED)


async def ended(rig, handle, log, words):
    """Returns once an instance was reported to have crashed, having said these words."""
    await eventually(lambda: rig.exits, "its end is reported")
    assert rig.exits == [(handle.id, 1)]
    said = os.read(log, 65536)
    os.close(log)
    assert words in said, said
    assert b"warden.py" not in said  # in a traceback


async def test_a_guest_that_panics_is_told_from_one_that_works(rig):
    handle = await rig.instance("echo")
    log = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)

    with Machine(handle).control() as control:
        control.sendall(b"nonsense\n")  # at which its first process ends, and with that its kernel panics

    await ended(rig, handle, log, ENDED)


async def test_a_guest_that_hangs_is_not_waited_for(rig):
    handle = await rig.instance("echo")
    os.kill(Machine(handle).monitor, signal.SIGSTOP)

    with pytest.raises(FetchError):
        await fetch(handle.socket, "POST", "/", "x", timeout=0.2)
    async with asyncio.timeout(SECONDS):
        await rig.driver.stop(handle, grace=0.1)

    assert rig.exits == []


async def test_a_guest_that_hangs_while_it_is_given_code_is_ended(rig):
    handle = await rig.start()
    os.kill(Machine(handle).monitor, signal.SIGSTOP)

    with pytest.raises(LoadFailed, match=r"within 0\.3 s"):
        await rig.specialise(handle, "echo", deadline=0.3)

    assert not await rig.driver.recover(handle)


async def test_a_guest_that_cannot_take_its_code_says_why(rig):
    handle = await rig.start()
    machine = Machine(handle)
    os.kill(machine.monitor, signal.SIGSTOP)

    with machine.guests_end(CONTROL) as guest:
        given = asyncio.create_task(rig.specialise(handle, "echo"))
        await eventually(lambda: select.select([guest], [], [], 0)[0], "it is given code")
        guest.sendall(b'{"event": "refused", "error": "No space left on device"}\n')

    with pytest.raises(DriverError, match="the cell took no code: OSError: No space left on device"):
        await given


async def test_a_machine_that_is_killed_before_it_has_code_takes_none(rig):
    handle = await rig.start()
    os.kill(Machine(handle).monitor, signal.SIGKILL)
    await eventually(lambda: rig.exits, "its end is reported")

    with pytest.raises(DriverError, match="gone"):
        await rig.specialise(handle, "echo")


@pytest.mark.parametrize(
    "said",
    [
        b'{"event": "equipped"}\n',
        b'{"event": "exited", "code": 4096, "oom_kills": 0}\n',
        b"x" * 100_000,
    ],
    ids=["unasked", "impossible", "endless"],
)
async def test_a_guest_that_lies_about_itself_is_ended(rig, said):
    handle = await rig.instance("echo")
    log = os.open(handle.log, os.O_RDONLY | os.O_NONBLOCK)

    with Machine(handle).guests_end(CONTROL) as guest:
        guest.sendall(said)

    await ended(rig, handle, log, LIES)


async def test_a_guest_that_floods_its_channels_fills_nothing_and_disturbs_nobody(rig):
    flooding, neighbour = await rig.instance("echo"), await rig.instance("echo")
    machine = Machine(flooding)
    before = memory_of(machine.warden)

    with machine.guests_end(LOG) as log, machine.guests_end(LINKS[-1]) as link:
        for channel, piece in ((log, b"x" * 65536), (link, bytes(65536))):
            channel.setblocking(False)
            with suppress(BlockingIOError):
                for _ in range(200):  # as much as is taken; nobody reads the log
                    channel.send(piece)
                    await asyncio.sleep(0)
        assert await ask(neighbour, "x") == b'"x"'
        assert await ask(flooding, "x") == b'"x"'
        assert memory_of(machine.warden) - before < 8_000_000

        link.setblocking(True)
        link.sendall(b"x" * 200_000)  # which begins a frame of 2 GB, wherever the last one ended
    await eventually(lambda: rig.exits, "its end is reported")
    assert rig.exits == [(flooding.id, 1)]


def memory_of(pid):
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def folder():
    """A folder of templates with a copy of the one that the tests have, on the same file system as that."""
    template = saved_machine()
    with tempfile.TemporaryDirectory(prefix="test-", dir=MICROVMS) as folder:
        folder = Path(folder)
        for path in (MICROVMS / "images", *MICROVMS.glob("kernel-*")):
            (folder / path.name).symlink_to(path)
        (folder / template.name).mkdir()
        for path in template.iterdir():
            os.link(path, folder / template.name / path.name)
        yield folder


async def test_a_template_that_is_damaged_is_made_anew_and_who_lives_goes_on(folder, short_path):
    said = []
    templates = Templates(folder, said.append)
    async with microvm_rig(short_path, LANE + 1, templates=templates) as rig:
        living = await rig.instance("echo")
        assert said == []
        (template,) = [path for path in folder.glob("python*") if path.is_dir()]
        state = bytearray((template / "state").read_bytes())
        state[len(state) // 2] ^= 0xFF
        (template / "state").unlink()  # which is a link to that of other tests
        (template / "state").write_bytes(state)

        assert await ask(await rig.instance("echo"), "x") == b'"x"'  # of what was read before
        shutil.rmtree(template)
        assert await ask(await rig.instance("echo"), "x") == b'"x"'
        assert said == []
        template.mkdir()
        (template / "state").write_bytes(state)
        await end_zygote(rig, living)
        again = await rig.instance("echo")

        assert await ask(again, "x") == b'"x"'
        assert said[0].endswith("contents.json cannot be read")
        assert said[-1].startswith("saved the microVM for python")
        assert sorted(path.name for path in template.iterdir()) == [
            "contents.json",
            "memory",
            "root",
            "state",
        ]


async def end_zygote(rig, living):
    """Ends the zygote, and with it all machines, as if the lane had begun anew."""
    status = Path(f"/proc/{living.pid}/status").read_text()
    os.kill(int(status.split("PPid:")[1].split()[0]), signal.SIGKILL)
    await eventually(lambda: living.id in dict(rig.exits), "its machines have ended")


@pytest.fixture
async def forking(short_path):
    """A rig whose zygote may be harmed."""
    async with microvm_rig(short_path, LANE + 2) as rig:
        yield rig
    await eventually(lambda: not any(held(rig).values()), "nothing is held any more")


async def test_a_monitor_that_is_forked_is_behind_the_same_walls_as_one_that_was_restored(forking):
    fork = Machine(await forking.instance("echo"))
    await kill(fork_server_of(fork.warden))
    restored = Machine(await forking.instance("echo"))

    assert parent_of(fork.monitor) == parent_of(fork.warden)
    assert parent_of(restored.monitor) == restored.warden
    walls = {name: status_of(restored.monitor)[name] for name in WALLS}
    assert (walls["NoNewPrivs"], walls["Seccomp"]) == ("1", "2")
    user = {name: status_of(fork.warden)[name] for name in USER}
    assert "0" not in user["Uid"].split()
    threads = [status_of(f"{fork.monitor}/task/{each}") for each in os.listdir(f"/proc/{fork.monitor}/task")]
    assert len(threads) > 1
    for status in threads:
        assert {name: status[name] for name in USER} == user
        assert {status[name] for name in POWER} == {"0" * 16}
        assert {name: status[name] for name in WALLS} == walls
    for file in ("limits", "oom_score_adj"):
        assert about(fork.monitor, file) == about(restored.monitor, file)


async def test_monitors_do_not_reach_their_wardens_with_signals(forking):
    require(landlock.version() >= 6, "a Landlock that knows of signals (6.12)")
    fork = Machine(await forking.instance("echo"))
    await kill(fork_server_of(fork.warden))
    restored = Machine(await forking.instance("echo"))

    for machine in (fork, restored):
        assert await asyncio.to_thread(alone, signalling, machine.monitor) == errno.EPERM


def signalling(pid):
    """Has a monitor, which does not survive it, ask whether it may signal its warden. Returns the error."""
    stopped, calls = Stopped.at_rest(pid, SECONDS), Policy.load().numbers
    assert stopped.call(calls["kill"], stopped.call(calls["getpid"]), 0) == 0
    try:
        return stopped.call(calls["kill"], 1, 0)
    except OSError as error:
        return error.errno


async def test_a_monitor_that_is_forked_is_where_its_warden_is_and_in_a_session_of_its_own(forking):
    machine = Machine(await forking.instance("echo"))

    assert parent_of(machine.monitor) == parent_of(machine.warden)
    assert about(machine.monitor, "cgroup") == about(machine.warden, "cgroup")
    monitors, wardens, own = (
        [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACES]
        for pid in (machine.monitor, machine.warden, "self")
    )
    assert monitors == wardens
    assert [kind for kind, *both in zip(NAMESPACES, monitors, own, strict=True) if both[0] == both[1]] == [
        "cgroup",
        "user",
    ]
    assert os.getsid(machine.monitor) == os.getpgid(machine.monitor) == machine.monitor


async def test_monitors_that_are_forked_have_no_descriptors_in_common_but_those_of_the_template(forking):
    fork, neighbour = Machine(await forking.instance("echo")), Machine(await forking.instance("echo"))

    here, beside = opened(fork.monitor), opened(neighbour.monitor)
    before = opened(fork_server_of(fork.warden))

    assert {*here} == {*beside} == {*before} - {fork_server.LISTENER}
    sockets = {number for number, what in here.items() if what.startswith("socket:")}
    assert sockets == {qemu_machine.QMP, *qemu_machine.CHANNELS.values()}
    assert not {here[number] for number in sockets} & {*beside.values(), *before.values()}
    others = {what for number, what in here.items() if number not in sockets}
    assert others == {*SHARED, EVENTS, str(fork.handle.log)}


def about(pid, file):
    return Path(f"/proc/{pid}/{file}").read_text()


def opened(pid):
    return {int(number): os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")}


async def kill(pid):
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: gone(pid), "it has ended")


def gone(pid):
    return not lives(pid)


async def test_a_monitor_that_is_forked_has_most_of_what_it_writes_to_before_it_does(forking):
    handle = await forking.start()
    monitor = monitor_of(handle.pid)
    assert parent_of(monitor) != handle.pid
    looks = []

    def at_rest():
        looks.append(owned(monitor))
        return looks[-20:] == [looks[-1]] * 20

    await eventually(at_rest, "it has done what a clone does first")
    await forking.specialise(handle, "echo")
    assert await ask(handle, "x") == b'"x"'

    after = owned(monitor)
    assert len(after - looks[-1]) < len(after) / 5


async def test_machines_outlive_what_they_were_forked_from_and_others_are_restored(forking):
    before = await forking.instance("echo")
    server = fork_server_of(before.pid)

    await kill(server)
    after = [await forking.instance("echo") for _ in range(2)]

    assert [await ask(each, "x") for each in (before, *after)] == [b'"x"'] * 3
    assert [parent_of(monitor_of(each.pid)) for each in after] == [each.pid for each in after]
    assert forking.exits == []
    assert gone(server)


async def test_what_a_machine_was_to_be_forked_from_may_end_before_it_is_there(forking):
    server = fork_server_of((await forking.instance("echo")).pid)
    os.kill(server, signal.SIGSTOP)
    start = asyncio.create_task(forking.instance("echo"))
    await asyncio.sleep(0.5)
    assert not start.done()

    await kill(server)
    handle = await start

    assert await ask(handle, "x") == b'"x"'
    assert parent_of(monitor_of(handle.pid)) == handle.pid


async def test_what_machines_are_forked_from_ends_with_the_driver(short_path):
    async with microvm_rig(short_path, LANE + 2) as rig:
        server = fork_server_of((await rig.instance("echo")).pid)
        assert not gone(server)

    await eventually(lambda: gone(server), "it has ended")


async def test_no_monitor_outlives_the_zygote(forking):
    machines = [Machine(await forking.instance("echo")) for _ in range(2)]
    monitors = [fork_server_of(machines[0].warden), *(each.monitor for each in machines)]

    await end_zygote(forking, machines[0].handle)

    await eventually(lambda: all(map(gone, monitors)), "their monitors have ended")


async def test_forks_of_one_machine_share_nothing_that_they_draw_or_write(rig):
    first, second = [await rig.instance("draw", source=DRAWS) for _ in range(2)]
    drawn = [json.loads(await ask(each, word)) for each, word in ((first, "a"), (second, "b"), (first, "c"))]
    third = await rig.instance("draw", source=DRAWS)
    drawn.append(json.loads(await ask(third, "d")))

    machines = [Machine(each) for each in (first, second, third)]
    assert {parent_of(each.monitor) for each in machines} == {parent_of(first.pid)}
    assert [written for *_, written in drawn] == ["a", "b", "ac", "d"]
    assert [held for *_, held, _ in drawn] == [["a"], ["b"], ["a", "c"], ["d"]]
    assert len({each for random, *_ in drawn for each in random}) == 4 * len(drawn[0][0])


@pytest.mark.parametrize("room", [38, 108], ids=["root", "memory"])
async def test_a_disk_that_is_full_while_a_template_is_made_is_said_and_nothing_is_left(room, tmp_path):
    saved_machine()
    script = f"""
    there=$(du -csm "$2"/images "$2"/kernel-* | tail -n 1 | cut -f 1)
    mount -t tmpfs -o size=$((there + {room}))m templates "$1" && cp -a "$2"/images "$2"/kernel-* "$1" &&
    "$3" -c "$4" "$1"; ls -A "$1"
    """
    command = ["sh", "-c", script, "-", str(tmp_path), str(MICROVMS), sys.executable, BUILD]

    done = await asyncio.to_thread(
        subprocess.run, ["unshare", "--mount", *command], capture_output=True, text=True, check=True
    )

    said = done.stdout.splitlines()
    assert any(line.startswith("the disk is full") for line in said), done
    assert not [line for line in said if line.startswith((".work", "python"))], done
