"""Functions in containers, on a real platform: what they do in processes, they do by one word of configuration."""

import json
import os
import shutil
import signal
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.conftest import require
from tests.system.conftest import until
from tests.system.test_adoption import SAYS_ITS_TOKEN, kill_lane

pytestmark = pytest.mark.slow

TELLS = """
import os, socket
def handle(r):
    print("asked for", r.get_text())
    cgroup = open("/proc/self/cgroup").read()
    return {"pid": os.getpid(), "host": socket.gethostname(), "uid": os.getuid(), "cgroup": cgroup}
"""

ORPHANS = """
import contextlib, os, time
def handle(r):
    for _ in range(5):
        if os.fork() == 0:
            os.fork()
            os._exit(0)
        os.wait()
    deadline = time.monotonic() + 20
    while dead() and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"dead": dead()}

def dead():
    states = []
    for each in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it is buried just now
            states.append(open(f"/proc/{each}/stat").read().rpartition(") ")[2][0])
    return states.count("Z")
"""


@pytest.fixture(scope="module")
def containers(make_platform):
    """With one engine: what differs from one to another is seen by the drivers' tests and those of faults."""
    require(shutil.which("crun"), "crun")
    platform = make_platform(lanes=1, container_runtime="crun", disable_microvm=True)
    platform.start()
    yield platform
    platform.stop()
    until(lambda: not left_of(platform), why="something is left")


def left_of(platform):
    """Everything that this platform's sandboxes have on the machine: cgroups, processes, mounts."""
    run = platform.settings.run_directory
    mark = f"martlet-{blake2b(bytes(run.absolute()), digest_size=4).hexdigest()}"
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{mark}*")]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(run) in line]
    processes = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "cgroup").read_bytes()
        except OSError:
            continue
        if str(run).encode() in told or mark.encode() in told:
            processes.append(told)
    return groups + mounts + processes


def test_a_platform_on_which_nobody_uses_containers_starts_no_keeper(containers):
    containers.deploy("usual", TELLS)
    containers.invoke("usual")

    assert not keepers_of(containers)

    containers.deploy("unusual", TELLS, execution_mode="container")
    assert keepers_of(containers)


def keepers_of(platform):
    return list(platform.settings.run_directory.glob("lane-0/*.keeper"))


def test_a_function_runs_in_a_container(containers):
    containers.deploy("told", TELLS, execution_mode="container")

    answer = containers.invoke("told", content="something")

    seen = answer.json()
    assert seen["pid"] < 32  # it is among the first in there
    assert seen["host"] == "told"
    assert seen["uid"] >= 2_000_000_000
    assert "-container/" in seen["cgroup"]
    (instance,) = containers.instances("told")
    assert instance["driver"] == "container"
    request = answer.headers["x-request-id"]
    lines = until(
        lambda: containers.client.get("/functions/told/logs", params={"request_id": request}).json(),
        why="no logs of the request",
    )
    assert "asked for something" in json.dumps(lines)


def test_processes_that_nobody_waits_for_leave_nothing(containers):
    containers.deploy("orphans", ORPHANS, execution_mode="container")

    assert containers.invoke("orphans").json() == {"dead": 0}


def test_a_function_moves_from_process_to_container_and_back(containers):
    containers.deploy("moves", TELLS)
    assert "-process/" in containers.invoke("moves").json()["cgroup"]

    containers.deploy("moves", TELLS, execution_mode="container")
    assert "-container/" in containers.invoke("moves").json()["cgroup"]

    containers.deploy("moves", TELLS, execution_mode="process")
    assert "-process/" in containers.invoke("moves").json()["cgroup"]


def test_it_scales_to_zero_and_back(containers):
    containers.deploy("idle", SAYS_ITS_TOKEN, execution_mode="container", idle_ttl=0.2)
    first = containers.invoke("idle").text

    until(lambda: not containers.instances("idle"), why="it was not scaled to zero")

    assert containers.invoke("idle").text != first


def test_a_container_that_is_killed_from_outside_is_replaced(containers):
    containers.deploy("killed", SAYS_ITS_TOKEN, execution_mode="container")
    first = containers.invoke("killed").text
    (instance,) = containers.instances("killed")

    os.kill(instance["pid"], signal.SIGKILL)
    until(
        lambda: instance["id"] not in [i["id"] for i in containers.instances("killed")],
        why="it is still there",
    )

    assert containers.invoke("killed").text != first


def test_a_container_outlives_its_lane(containers):
    containers.deploy("stays", SAYS_ITS_TOKEN, execution_mode="container")
    token, before = containers.invoke("stays").text, containers.instances("stays")

    kill_lane(containers)

    assert containers.invoke("stays").text == token
    assert containers.instances("stays")[0]["pid"] == before[0]["pid"]


def test_a_killed_platform_leaves_nothing_once_the_next_one_runs(containers):
    containers.deploy("lost", SAYS_ITS_TOKEN, execution_mode="container")
    containers.invoke("lost")
    (instance,) = containers.instances("lost")

    for process in [containers.process.pid, *containers.children().values()]:
        os.kill(process, signal.SIGKILL)
    containers.process.wait()
    containers.start()

    assert not Path(f"/proc/{instance['pid']}").exists()
    assert containers.invoke("lost").status_code == 200
