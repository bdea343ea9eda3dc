"""``kill -9`` of anything at any moment: the platform heals, keeps what was deployed, and leaks nothing."""

import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from tests.system.conftest import until

CODE = "import time\ndef handle(r):\n    time.sleep(0.001)\n    return 'alive'\n"


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
    living = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                living.append(pid)
    return living


def cgroups(pid):
    """Returns the cgroup folders of a process, in every hierarchy, that Martlet made."""
    found = set()
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        top = Path("/sys/fs/cgroup") / controllers if controllers else Path("/sys/fs/cgroup")
        if path.startswith("/martlet-"):
            found.add(top / path.lstrip("/"))
    return found


class Load:
    """Requests without pause; whatever comes back is noted."""

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
                with httpx2.Client(base_url=self.platform.url, timeout=40) as client:
                    key = {"authorization": f"Bearer {self.platform.key}"}
                    while not self._stop.is_set():
                        began = time.monotonic()
                        self.statuses.append(client.post("/invoke/survivor", headers=key).status_code)
                        self.slowest = max(self.slowest, time.monotonic() - began)
            except httpx2.TransportError:
                self.statuses.append(0)
                self.slowest = max(self.slowest, time.monotonic() - began)
                time.sleep(0.01)


@pytest.fixture
def own_platform(make_platform):
    platform = make_platform()
    platform.start()
    platform.deploy("survivor", CODE)
    yield platform
    platform.close()


def victim(platform, kind):
    """Returns the pid of one process of a kind, or None if there is none now."""
    children = platform.children()
    if kind in ("control", "lane-0", "lane-1"):
        return children.get(kind)
    lanes = [pid for name, pid in children.items() if name.startswith("lane")]
    zygotes = [pid for lane in lanes for pid in descendants(lane)[:1]]
    if kind == "zygote":
        return random.choice(zygotes) if zygotes else None
    instances = [pid for zygote in zygotes for pid in descendants(zygote)]
    return random.choice(instances) if instances else None


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_any_process_may_be_killed_at_any_moment_under_load(own_platform):
    platform = own_platform
    everything = set()
    random.seed(7)
    with Load(platform) as load:
        for kind in ["instance", "zygote", "lane-0", "control", "lane-1", "instance", "zygote", "lane-0"] * 2:
            pid = victim(platform, kind)
            everything |= set(descendants(platform.process.pid))
            if pid is None:
                continue
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            before = len(load.statuses)
            until(
                lambda before=before: load.statuses[before:].count(200) > 5,
                within=30,
                why=f"no answers after the {kind} was killed",
            )
    assert set(load.statuses) <= {0, 200, 502, 503}, set(load.statuses)
    assert load.slowest < 30
    platform.wait_ready()
    assert platform.client.get("/functions/survivor").json()["latest"] == 1
    assert platform.invoke("survivor").text == "alive"
    platform.deploy("after", "def handle(r):\n    return 'new'\n")
    assert platform.invoke("after").text == "new"
    everything |= set(descendants(platform.process.pid))
    assert platform.stop() == 0
    until(lambda: not alive(everything), why=f"processes are left: {alive(everything)}")
    assert not platform.settings.run_directory.exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_killed_supervisor_takes_everything_with_it_and_a_new_one_finds_all_in_order(own_platform):
    platform = own_platform
    groups = set()
    for _ in range(3):
        with Load(platform, clients=2):
            everything = descendants(platform.process.pid)
            groups |= {group for pid in alive(everything) for group in cgroups(pid)}
            os.kill(platform.process.pid, signal.SIGKILL)
            platform.process.wait()
        until(lambda everything=everything: not alive(everything), why="processes outlive the supervisor")
        platform.start()
        assert platform.invoke("survivor").text == "alive"
    everything = descendants(platform.process.pid)
    assert platform.stop() == 0
    until(lambda: not alive(everything), why="processes are left")
    assert groups, "no instance was in a cgroup of its own"
    assert not [group for group in groups if group.exists()]
    assert not platform.settings.run_directory.exists()


def test_a_stop_ends_everything_and_leaves_nothing(make_platform):
    mounts = Path("/proc/self/mounts").read_text()
    platform = make_platform()
    platform.start()
    platform.deploy("stops", CODE)
    platform.invoke("stops")
    everything = descendants(platform.process.pid)
    assert platform.stop() == 0
    until(lambda: not alive(everything), why="processes are left")
    assert not platform.settings.run_directory.exists()
    assert Path("/proc/self/mounts").read_text() == mounts


def test_two_platforms_on_the_same_data_or_port_are_refused(platform, make_platform):
    second = make_platform(api_gateway_port=platform.port)
    with pytest.raises(pytest.fail.Exception, match="cannot listen on"):
        second.start()
    third = make_platform(function_storage_path=str(platform.data))
    with pytest.raises(pytest.fail.Exception, match="another Martlet runs"):
        third.start()


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
