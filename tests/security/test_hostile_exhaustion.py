"""A function that takes all it can get is held to its limits, is ended, leaves nothing, and no neighbour waits."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.security.conftest import bounded_memory, undisturbed
from tests.system.conftest import until

ALIVE = {"outcome": "alive"}
MOST = 20_000
"""More of anything, from processes to files, than a function with 64 MiB may have."""


@pytest.fixture(scope="module")
def exhausting(hostile):
    return hostile("exhausting", timeout=2, memory="64Mi", max_instances=2)


@pytest.fixture(scope="module")
def steady(hostile):
    """The same, with time for what is to be answered."""
    return hostile("exhausting", name="steady", timeout=60, memory="64Mi", max_instances=1)


def inside(pids):
    """Returns the processes in the cgroups of these, themselves included: each instance has one of its own."""
    groups = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                groups.setdefault((entry / "cgroup").read_text(), set()).add(int(entry.name))
            except OSError:
                continue
    return set().union(*(members for members in groups.values() if members & set(pids)))


def assert_recovers(function):
    """It answers again, and nothing is left of the instances that have ended."""
    response = until(lambda: answer_of(function), why="it does not answer again")
    assert response == ALIVE


def answer_of(function):
    response = function.send("alive")
    return response.json() if response.status_code == 200 else None


@pytest.mark.parametrize(
    "attempt",
    [
        "fork_bomb",
        "processes",
        "threads",
        "descriptors",
        "memory",
        "shared_memory",
        "page_tables",
        "pipes",
        "socket_buffers",
        "sockets",
        "system_v",
        "message_queues",
        "watches",
        "locked_memory",
        "disk",
        "names",
        "spin",
        "spin_everywhere",
        "stop_itself",
        "close_everything",
        "hold_on",
        "recurse",
        "segfault",
        "abort",
    ],
)
def test_it_is_held_and_ended_and_another_takes_its_place(exhausting, platform, attempt):
    assert_recovers(exhausting)
    before = inside(exhausting.pids)
    assert before
    with undisturbed(platform), bounded_memory(platform):
        response = exhausting.send(attempt)
        assert response.status_code in (200, 500, 502, 504)
        if response.status_code == 200 and isinstance(given := response.json()["outcome"], int):
            assert given < MOST
        assert_recovers(exhausting)
    members = inside(exhausting.pids)
    for instance in platform.instances("exhausting"):
        platform.client.delete(f"/instances/{instance['id']}")
    until(
        lambda: not [pid for pid in before | members if Path(f"/proc/{pid}").exists()],
        why="processes are left",
    )


def weight(pid):
    """Returns what a process gets of its core beside others, in the unit of this host's cgroups."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for tree, file in (("cpu", "cpu.shares"), ("", "cpu.weight")):
            place = Path("/sys/fs/cgroup", tree, path.lstrip("/"), file)
            if tree in controllers.split(",") and place.exists():
                return int(place.read_text())
    raise AssertionError(f"nothing weighs {pid}")


def test_who_computes_for_long_gives_way_until_it_is_done(steady):
    steady.attempt("alive")
    (pid,) = steady.pids
    usual = weight(pid)

    def gave_way():
        computing = pool.submit(steady.attempt, "compute", 1)
        lowest = usual
        while not computing.done():
            lowest = min(lowest, weight(pid))
            time.sleep(0.01)
        assert computing.result() == "done"
        return lowest < usual / 2

    with ThreadPoolExecutor() as pool:
        until(gave_way, why="it does not give way")
    until(lambda: weight(pid) == usual, why="it has not got its share back")


def test_daemons_end_with_their_instance(steady, platform, rung):
    assert steady.attempt("leave_daemons") == "left"
    # Those in a machine only its own kernel sees; they end with it.
    most = 1 if rung == "microvm" else 5
    members = until(lambda: len(inside(steady.pids)) > most and inside(steady.pids), why="there is no daemon")
    for instance in platform.instances("steady"):
        platform.client.delete(f"/instances/{instance['id']}")
    until(lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()], why="daemons are left")


@pytest.mark.parametrize("flood", ["lines", "endless_line", "binary"])
def test_a_flood_of_logs_is_cut_and_disturbs_nobody(exhausting, platform, flood):
    with undisturbed(platform), bounded_memory(platform):
        exhausting.send(flood, 1.5)
        assert_recovers(exhausting)
    kept = platform.settings.system.log_bytes_per_function * platform.settings.lane_count
    logs = [file for file in platform.data.joinpath("logs").rglob("*") if "exhausting" in str(file)]
    assert 0 < sum(file.stat().st_size for file in logs if file.is_file()) < 2 * kept
    tail = "/functions/exhausting/logs?tail=50"
    until(lambda: platform.client.get(tail).status_code == 200, why="the logs cannot be read")


def test_lines_cannot_be_forged_into_the_logs_of_others(steady, platform):
    asked = platform.invoke("neighbour", content=b"x").headers["x-request-id"]
    steady.attempt("forged_lines", asked)
    logs = "/functions/steady/logs"
    lines = until(
        lambda: [line for line in platform.client.get(logs).json() if line["message"] == "forged"],
        why="the lines did not arrive",
    )
    assert {line["stream"] for line in lines} <= {"stdout", "platform"}
    assert all(time.time() - line["time"] < 600 for line in lines)
    theirs = platform.client.get("/functions/neighbour/logs").json()
    assert not [line for line in theirs if line["message"] == "forged"]


def test_limits_cannot_be_raised(steady):
    assert steady.attempt("raise_limits") == []
    assert steady.attempt("huge_files") != 0


@pytest.mark.parametrize("code", [0, 1, 137, 255])
def test_every_way_to_leave_is_a_crash_of_the_function(steady, code):
    response = steady.send("leave", code)
    assert (response.status_code, response.json()["code"]) == (502, "function_crashed")
    assert_recovers(steady)


def test_a_function_that_dies_at_once_again_and_again_takes_nobodys_time(platform):
    code = (
        "import os, threading\nthreading.Timer(0.05, os._exit, [1]).start()\ndef handle(r):\n    return 1\n"
    )
    with undisturbed(platform), bounded_memory(platform):
        answer = platform.client.post(
            "/functions", json={"name": "dying", "code": code, "config": {"min_instances": 5}}
        )
        assert answer.status_code in (201, 502)
        for _ in range(20):
            assert platform.invoke("dying").status_code in (200, 502, 503)
    platform.client.delete("/functions/dying")
    until(lambda: not platform.instances("dying"), why="instances are left")


@pytest.mark.slow
def test_a_function_that_holds_on_ends_with_the_platform(make_platform):
    platform = make_platform(lanes=1, min_cells=1)
    platform.start()
    platform.deploy(
        "holds",
        "import ctypes, os, time\n"
        "def handle(request):\n"
        "    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        os.closerange(0, 4096)\n"
        "        time.sleep(3600)\n"
        "    return 'holding on'\n",
    )
    assert platform.invoke("holds").text == "holding on"
    members = inside([instance["pid"] for instance in platform.instances("holds")])
    assert len(members) > 1
    platform.stop()
    until(lambda: not [pid for pid in members if Path(f"/proc/{pid}").exists()], why="processes are left")
