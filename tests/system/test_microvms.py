"""Functions in microVMs, on a real platform: what they do in processes, they do by one word of configuration."""

import errno
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from martlet.microvm import kvm
from martlet.microvm.templates import monitor
from martlet.units import parse_bytes
from tests.conftest import MICROVMS
from tests.driver_rigs import prepare_microvms
from tests.monitors import monitor_of
from tests.system.conftest import until
from tests.system.holdings import nothing_left
from tests.system.test_adoption import SAYS_ITS_TOKEN, SLEEPS, kill_lane

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

TELLS = """
import os, random, secrets, ssl, tempfile, time, uuid
def handle(request):
    print("asked for", request.get_text())
    drawn = [os.urandom(8).hex(), random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4()), str(uuid.uuid1())]
    drawn += [secrets.token_hex(), next(tempfile._get_candidate_names()), str(random.SystemRandom().random())]
    drawn.append(open("/proc/sys/kernel/random/boot_id").read())
    kernel = os.uname()
    told = {"kernel": kernel.release, "host": kernel.nodename, "uid": os.getuid(), "time": time.time()}
    return told | {"drawn": drawn}
"""
HELD = """
import ctypes, os, resource
def handle(request):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    held = {name: status[name].strip() for name in ("Seccomp", "NoNewPrivs", "CapPrm", "CapBnd")}
    ctypes.CDLL(None, use_errno=True).unshare(0)
    limits = {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "MSGQUEUE", "MEMLOCK")}
    held |= {"errno": ctypes.get_errno(), "limits": limits}
    held["processors"] = [*os.sched_getaffinity(0)]
    return held | {"landlock": ctypes.CDLL(None).syscall(444, None, 0, 1)}
"""
TAKES = """
import os
def handle(request):
    if request.get_text() == "all":
        return len(b"x" * 2**28)
    space = os.statvfs("/tmp")
    return space.f_blocks * space.f_frsize
"""
EATS = """
def handle(request):
    return str(len(bytearray(1 << 27))) if request.get_text() else "alive"
"""
CLONES, MANY = 4, 50
"""How many are compared, and how many with ``--every-rung``."""
CLOCK_SECONDS = 2.0


@pytest.fixture(scope="module")
def microvms(make_platform):
    prepare_microvms()
    platform = make_platform(lanes=1, microvm_path=str(MICROVMS), min_cells=1)
    platform.start()
    yield platform
    platform.stop()
    nothing_left(platform)


def test_a_function_runs_in_a_machine_with_a_kernel_of_its_own(microvms):
    microvms.deploy("told", TELLS, execution_mode="microvm")

    answer = microvms.invoke("told", content="something")

    seen = answer.json()
    assert seen["kernel"].endswith("-cloud-amd64")
    assert seen["host"] == "told"
    assert seen["uid"] != 0
    (instance,) = microvms.instances("told")
    assert instance["driver"] == "microvm"
    request = answer.headers["x-request-id"]
    lines = until(
        lambda: microvms.client.get("/functions/told/logs", params={"request_id": request}).json(),
        why="no logs of the request",
    )
    assert "asked for something" in json.dumps(lines)


def test_a_function_is_behind_the_walls_that_its_cell_was_saved_with(microvms):
    microvms.deploy("held", HELD, execution_mode="microvm")

    seen = microvms.invoke("held").json()

    assert seen["errno"] == errno.EPERM
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "1")
    assert int(seen["CapPrm"], 16) == int(seen["CapBnd"], 16) == 0
    assert seen["limits"] == {"CORE": [1, 1], "MSGQUEUE": [0, 0], "MEMLOCK": [65536, 65536]}
    assert seen["landlock"] > 0
    if not kvm.find(monitor()).held:
        assert seen["processors"] == [1]


@pytest.mark.parametrize("config", [{}, {"memory": "64Mi"}, {"memory": "192Mi"}])
def test_a_function_has_the_limits_that_it_asks_for_and_those_of_most_where_it_asks_for_none(
    microvms, config
):
    name = f"takes-{config.get('memory', 'what-is-usual').lower()}"
    microvms.deploy(name, TAKES, execution_mode="microvm", **config)
    memory = parse_bytes(config.get("memory", "128Mi"))

    assert microvms.invoke(name).json() == memory // 2
    assert microvms.invoke(name, content="all").status_code == 502


def test_clones_of_one_machine_are_no_copies_of_each_other(microvms, request):
    number = MANY if request.config.getoption("every_rung") else CLONES
    told = []
    for name in (f"draws-{each}" for each in range(number)):
        began = time.time()
        microvms.deploy(name, TELLS, execution_mode="microvm")
        told.append(microvms.invoke(name).json())
        # It was told the time while it was deployed: as much as that took it may be behind.
        assert began - CLOCK_SECONDS < told[-1]["time"] < time.time() + CLOCK_SECONDS
        assert told[-1]["host"] == name
        microvms.client.delete(f"/functions/{name}")

    drawn = [each["drawn"] for each in told]
    assert [len(set(column)) for column in zip(*drawn, strict=True)] == [number] * len(drawn[0])


@pytest.mark.parametrize(("setting", "value"), [("memory", "1024Mi"), ("concurrency", 17)])
def test_what_a_microvm_does_not_have_is_refused(microvms, setting, value):
    config = {"execution_mode": "microvm", setting: value}

    refused = microvms.client.post("/functions", json={"name": "wants", "code": TELLS, "config": config})

    assert (refused.status_code, refused.json()["field"]) == (422, f"config.{setting}")


def test_a_request_that_takes_more_than_its_memory_is_told_so_by_the_kernel_of_the_guest(microvms):
    microvms.deploy("eats", EATS, execution_mode="microvm", memory="32Mi")

    answer = microvms.invoke("eats", content="all")

    assert (answer.status_code, answer.json()["code"]) == (502, "function_out_of_memory")
    assert microvms.invoke("eats").text == "alive"


def test_a_monitor_takes_no_more_pages_than_it_writes_to(microvms):
    microvms.deploy("small", EATS, execution_mode="microvm")
    assert microvms.invoke("small").text == "alive"
    (instance,) = microvms.instances("small")

    status = Path(f"/proc/{monitor_of(instance['pid'])}/status").read_text()

    assert "\nTHP_enabled:\t0\n" in status


def test_a_request_whose_machine_is_killed_is_told_so_and_the_next_one_has_another(microvms):
    microvms.deploy("struck", SLEEPS, execution_mode="microvm")
    assert microvms.invoke("struck", content="0").status_code == 200
    (instance,) = microvms.instances("struck")

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(microvms.invoke, "struck", content="60")
        until(lambda: microvms.instances("struck")[0]["state"] == "busy", why="it is not busy")
        os.kill(monitor_of(instance["pid"]), signal.SIGKILL)

    assert (answer.result().status_code, answer.result().json()["code"]) == (502, "function_crashed")
    assert microvms.invoke("struck", content="0").status_code == 200
    until(
        lambda: instance["id"] not in [each["id"] for each in microvms.instances("struck")],
        why="the dead one is listed",
    )


def test_a_machine_that_hangs_costs_its_request_the_timeout_and_is_replaced(microvms):
    microvms.deploy("hangs", SAYS_ITS_TOKEN, execution_mode="microvm", timeout=20)
    first = microvms.invoke("hangs")
    assert first.status_code == 200, first.text
    (instance,) = microvms.instances("hangs")

    os.kill(monitor_of(instance["pid"]), signal.SIGSTOP)
    answer = microvms.invoke("hangs")

    assert (answer.status_code, answer.json()["code"]) == (504, "function_timeout")
    again = microvms.invoke("hangs")
    assert again.status_code == 200, again.text
    assert again.text != first.text
    until(lambda: not Path(f"/proc/{instance['pid']}").exists(), why="it is still there")


def test_a_machine_outlives_its_lane(microvms):
    microvms.deploy("stays", SAYS_ITS_TOKEN, execution_mode="microvm")
    token, before = microvms.invoke("stays").text, microvms.instances("stays")

    kill_lane(microvms)

    assert microvms.invoke("stays").text == token
    assert microvms.instances("stays")[0]["pid"] == before[0]["pid"]


def test_a_killed_platform_leaves_nothing_once_the_next_one_runs(microvms):
    microvms.deploy("lost", SAYS_ITS_TOKEN, execution_mode="microvm")
    microvms.invoke("lost")
    (instance,) = microvms.instances("lost")

    for process in [microvms.process.pid, *microvms.children().values()]:
        os.kill(process, signal.SIGKILL)
    microvms.process.wait()
    microvms.start()

    until(lambda: not Path(f"/proc/{instance['pid']}").exists(), why="its machine is still there")
    assert microvms.invoke("lost").status_code == 200
