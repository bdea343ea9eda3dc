"""``kill -9`` of anything at any moment: the platform heals, keeps what was deployed, and leaks nothing."""

import glob
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import httpx2
import pytest

from tests.processes import lives
from tests.system.conftest import START_TIMEOUT, plain_client, until

CODE = "import time\ndef handle(r):\n    time.sleep(0.001)\n    return 'alive'\n"


PAUSE = 0.005
"""Seconds that a client of the load waits between requests: without, they take the machine for themselves."""


def descendants(pid):
    """Returns the pids of all processes below one, deepest last."""
    found, new = [], [pid]
    while new:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{new.pop()}/task").iterdir():
                children = [int(child) for child in (task / "children").read_text().split()]
                found += children
                new += children
    return found


def alive(pids):
    """Returns those that still run (a zombie does not)."""
    return [pid for pid in pids if lives(pid)]


def cgroups(pid):
    """Returns the cgroup folders of a process, in every hierarchy, that Martlet made; none when it is gone."""
    found = set()
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = Path("/sys/fs/cgroup") / controllers if controllers else Path("/sys/fs/cgroup")
        if path.startswith("/martlet-"):
            found.add(top / path.lstrip("/"))
    return found


class Load:
    """Requests all the time; whatever comes back is noted."""

    def __init__(self, platform, clients=4):
        self.platform = platform
        self.statuses = []
        self.slowest = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        until(lambda: 200 in self.statuses, why="no request was answered")
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"

    def _call(self):
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                with plain_client(self.platform.url, timeout=40) as client:
                    key = {"authorization": f"Bearer {self.platform.key}"}
                    while not self._stop.is_set():
                        began = time.monotonic()
                        self.statuses.append(client.post("/invoke/survivor", headers=key).status_code)
                        self.slowest = max(self.slowest, time.monotonic() - began)
                        self._stop.wait(PAUSE)
            except httpx2.TransportError:
                self.statuses.append(0)
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(0.01)


@pytest.fixture(scope="module")
def own_platform(make_platform):
    platform = make_platform(disable_container=True, disable_microvm=True)
    platform.start()
    platform.deploy("survivor", CODE, max_instances=1)
    return platform


def command_of(pid):
    """Returns the command line of a process; empty when it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def everybody():
    """Returns the pids of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def members(platform, among=None):
    """Returns the living processes of a platform by kind: of all the machine, or of some processes."""
    run = str(platform.settings.run_directory).encode()
    found = {kind: [] for kind in ("supervisor", "forkserver", "control", "lane", "zygote", "cell")}
    for pid in everybody() if among is None else among:
        with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
            command = command_of(pid)
            if run + b"/" in command and alive([pid]):  # the plan of a zygote, which its cells share
                parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                found["cell" if command_of(parent) == command else "zygote"].append(pid)
            elif run + b"/settings.json" in Path(f"/proc/{pid}/environ").read_bytes() and alive([pid]):
                found[KINDS.get(Path(f"/proc/{pid}/comm").read_text().strip(), "lane")].append(pid)
    if platform.process is not None:
        found["supervisor"] = alive([platform.process.pid])
    return found


def to_kill(platform, kind):
    """Returns the processes of a kind; lanes, which need a forkserver, where that is not back yet."""
    found = members(platform, descendants(platform.process.pid))
    return found[kind] or (found["lane"] if kind == "forkserver" else [])


def found(pattern):
    """Returns what is there under a pattern; what goes while it is looked for does no harm."""
    return {Path(path) for path in glob.glob(pattern, recursive=True, include_hidden=True)}


def made_ahead(run, groups):
    """Returns the ids of places that stand ready for cells, of which each lane may have one: nothing runs in theirs."""
    ready = set()
    for lane in found(f"{run}/lane-*/"):
        for place in sorted(path.parent for path in found(f"{lane}/*/sock")):
            with suppress(FileNotFoundError):
                theirs = [group / "cgroup.procs" for group in groups if group.name == place.name]
                if theirs and not any(file.read_text() for file in theirs):
                    ready.add(place.name)
                    break
    return ready


def inventory(platform):
    """Returns what a platform has of everything that could leak: how many, or which where that does not change.

    Places made ahead do not count: a lane has one once somebody has waited there for a cell.
    """
    run, data = platform.settings.run_directory, platform.data
    processes = members(platform)
    namespaces = set()
    for pid in [pid for pids in processes.values() for pid in pids]:
        for name in ("mnt", "pid", "net", "ipc", "uts"):
            with suppress(FileNotFoundError, ProcessLookupError):
                namespaces.add(os.readlink(f"/proc/{pid}/ns/{name}"))
    group, link = (blake2b(bytes(run), digest_size=size).hexdigest() for size in (4, 3))
    groups = found(f"/sys/fs/cgroup/*/martlet-{group}-*/**/") | found(f"/sys/fs/cgroup/martlet-{group}-*/**/")
    ahead = made_ahead(run, groups)
    return {
        "processes": {kind: len(pids) for kind, pids in processes.items()},
        "namespaces": len(namespaces),
        "cgroups": sum(path.name not in ahead for path in groups),
        "links": sum(name.startswith(f"m{link}") for _, name in socket.if_nameindex()),
        "mounts": Path("/proc/self/mountinfo").read_text().count(str(run)),
        "run": Counter(
            path.name
            for path in found(f"{run}/**")
            if not path.parent.name.startswith("lane-") and path.parent.name not in ahead
        ),
        "directories": sum(path.name not in ahead for path in found(f"{run}/lane-*/*")),
        "data": {path for kind in ("packages", "blobs", "builds") for path in found(f"{data}/{kind}/**")},
    }


def descriptors(platform):
    """Returns how many descriptors the processes that run no functions have, the most of each kind."""
    processes = members(platform)
    return {
        kind: max(len(os.listdir(f"/proc/{pid}/fd")) for pid in processes[kind])
        for kind in ("supervisor", "control", "lane", "zygote")  # the forkserver is back when it is needed
    }


KINDS = {"martlet-fork": "forkserver", "martlet-control": "control"}
"""What processes that are no lanes are called."""
WITH_SUPERVISOR = ["cell"] * 8 + ["zygote"] * 4 + ["lane"] * 3 + ["control"] * 2 + ["supervisor"] * 3
WITHOUT = ["cell"] * 46 + ["zygote"] * 16 + ["lane"] * 9 + ["control"] * 4 + ["forkserver"] * 4
"""In this order: a supervisor that starts sweeps what the kills before it may have left."""
FEW = 12
"""Descriptors more or less that say nothing: connections that are kept, databases that are open just now."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_leaks_in_a_hundred_random_kills_under_load(own_platform):
    platform = own_platform
    assert platform.invoke("survivor").text == "alive"
    before = settled(platform)
    descriptors_before = descriptors(platform)
    chance = random.Random(7)
    kills = [kind for kinds in (WITH_SUPERVISOR, WITHOUT) for kind in chance.sample(kinds, k=len(kinds))]
    kills.append("lane")  # which brings a forkserver back
    with Load(platform) as load:
        for kind in kills:
            pids = until(
                lambda kind=kind: to_kill(platform, kind),
                within=START_TIMEOUT,
                why=f"there is no {kind} to kill",
            )
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
            if kind == "supervisor":
                platform.process.wait()
                platform.launch()
                until(
                    lambda: (
                        len(platform.children()) == 3
                    ),  # before, those of its former life may say that it is ready
                    within=START_TIMEOUT,
                    why="the platform does not start anew",
                )
                platform.wait_ready()
        platform.wait_ready()
        answered = len(load.statuses)
        until(lambda: load.statuses[answered:].count(200) > 20, why="no answers after the last kill")
    assert set(load.statuses) <= {0, 200, 502, 503}, set(load.statuses)
    assert load.slowest < 30

    def restored():
        assert platform.invoke("survivor").text == "alive"  # nobody else asks for its instance any more
        return inventory(platform) == before

    until(restored, why=Difference(platform, before))
    after = descriptors(platform)
    assert all(after[kind] <= descriptors_before[kind] + FEW for kind in after), (descriptors_before, after)
    assert platform.client.get("/functions/survivor").json()["latest"] == 1
    assert platform.invoke("survivor").text == "alive"
    platform.deploy("after", "def handle(r):\n    return 'new'\n")
    assert platform.invoke("after").text == "new"


class Difference:
    """What an inventory has that it had not, worked out when it is printed."""

    def __init__(self, platform, before):
        self.platform, self.before = platform, before

    def __str__(self):
        now = inventory(self.platform)
        changed = {name: (self.before[name], now[name]) for name in now if now[name] != self.before[name]}
        return f"before and after differ: {changed}"


def settled(platform):
    """Returns the inventory once it no longer changes: the cells are made that shall stand ready."""
    last = [inventory(platform)]

    def unchanged():
        time.sleep(0.5)
        last.append(inventory(platform))
        return last[-1] == last[-2]

    until(unchanged, why="the platform does not settle")
    return last[-1]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_killed_supervisor_takes_everything_with_it_and_a_new_one_finds_all_in_order(own_platform):
    platform = own_platform
    with Load(platform, clients=2):
        everything = descendants(platform.process.pid)
        groups = {group for pid in alive(everything) for group in cgroups(pid)}
        os.kill(platform.process.pid, signal.SIGKILL)
        platform.process.wait()
    until(lambda: not alive(everything), why="processes outlive the supervisor")
    platform.start()
    assert platform.invoke("survivor").text == "alive"
    assert groups, "no instance was in a cgroup of its own"
    new = {group for pid in alive(descendants(platform.process.pid)) for group in cgroups(pid)}
    assert not [group for group in groups - new if group.exists()]


def test_a_stop_ends_everything_and_leaves_nothing(own_platform):
    platform = own_platform
    assert platform.invoke("survivor").text == "alive"
    everything = descendants(platform.process.pid)
    groups = {group for pid in alive(everything) for group in cgroups(pid)}
    assert groups, "no instance was in a cgroup of its own"
    assert platform.stop() == 0
    until(lambda: not alive(everything), why="processes are left")

    def nothing():
        left = inventory(platform)
        return not any(left["processes"].values()) and not left["cgroups"] + left["links"] + left["mounts"]

    # What the kernel takes down with a namespace, it takes down a moment after its last process.
    until(nothing, why=Difference(platform, dict.fromkeys(inventory(platform))))
    assert not [group for group in groups if group.exists()]
    assert not platform.settings.run_directory.exists()
    mounts = Path("/proc/self/mountinfo").read_text()
    assert not any(str(path) in mounts for path in (platform.settings.run_directory, platform.data))


def test_two_platforms_on_the_same_data_or_port_are_refused(platform, make_platform):
    second = make_platform(api_gateway_port=platform.port)
    with pytest.raises(pytest.fail.Exception, match="cannot listen on"):
        second.start()
    third = make_platform(function_storage_path=str(platform.data))
    with pytest.raises(pytest.fail.Exception, match="another Martlet runs"):
        third.start()


def test_nothing_ends_with_the_forkserver_and_what_was_killed_comes_back(platform):
    platform.deploy("stays", CODE)
    before = platform.children()
    (forkserver,) = members(platform)["forkserver"]
    os.kill(forkserver, signal.SIGKILL)
    os.kill(before["lane-0"], signal.SIGKILL)
    until(
        lambda: platform.children().get("lane-0", before["lane-0"]) != before["lane-0"],
        why="the lane is not back",
    )
    platform.wait_ready()
    assert platform.children() == before | {"lane-0": platform.children()["lane-0"]}
    assert alive(members(platform)["forkserver"])
    assert platform.invoke("stays").text == "alive"


def test_a_request_is_not_lost_on_a_connection_that_control_finds_idle_for_long(platform):
    control = platform.children()["control"]
    assert platform.client.get("/functions").status_code == 200
    os.kill(control, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(platform.client.get, "/functions")
        time.sleep(6)  # so long it has nothing to do, as far as it knows
        os.kill(control, signal.SIGCONT)
        assert asked.result().status_code == 200, asked.result().text


def test_management_answers_503_while_control_restarts_and_functions_answer_on(platform):
    platform.deploy("goes-on", CODE)
    os.kill(platform.children()["control"], signal.SIGKILL)
    seen = set()

    def back():
        assert platform.invoke("goes-on").text == "alive"
        seen.add(platform.client.get("/functions").status_code)
        return 200 in seen

    until(back, why="control is not back")
    assert seen <= {200, 503}
    platform.wait_ready()
