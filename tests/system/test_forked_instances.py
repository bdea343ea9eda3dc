"""Instances of code that takes long to load: forked from a template, or each with a load of its own."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from tests.processes import lives
from tests.system.conftest import until

SLOW = """
import os, time
end = time.monotonic() + 0.3
while time.monotonic() < end: pass
print("loaded")

def handle(request):
    time.sleep(1)
    return os.urandom(8).hex() + " " + str(os.getpid())
"""
QUICK = "import time\nprint('loaded')\ndef handle(r):\n    time.sleep(0.5)\n    return 1\n"
THREADED = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"


@pytest.fixture(scope="module")
def one_lane(make_platform):
    platform = make_platform(
        lanes=1, max_concurrent_functions=100, disable_container=True, disable_microvm=True
    )
    platform.start()
    return platform


def burst(platform, name, requests=8):
    """Sends requests at once; returns the answers."""
    with ThreadPoolExecutor(requests) as threads:
        answers = list(threads.map(lambda _: platform.invoke(name), range(requests)))
    assert {answer.status_code for answer in answers} == {200}
    return answers


def loads(platform, name):
    """How often the code of a function has been loaded, and which instances printed it."""
    lines = platform.client.get(f"/functions/{name}/logs", params={"tail": 1000}).json()
    return [line["instance"] for line in lines if line["message"] == "loaded"]


def loads_ms(answer):
    """What a request waited for its code to load; None where it waited for no instance."""
    found = re.search(r"load;dur=([\d.]+)", answer.headers["server-timing"])
    return None if found is None else float(found[1])


def parent(pid):
    """The process that forked another; None where that is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(re.search(r"^PPid:\t(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def family(platform, name):
    """The pid of a function's template, the pids of its forks, and those of its other instances."""
    pids = [instance["pid"] for instance in platform.instances(name)]
    parents = [parent(pid) for pid in pids]
    (template,) = {one for one in parents if parents.count(one) > 1}
    forks = [pid for pid, one in zip(pids, parents, strict=True) if one == template]
    return template, forks, [pid for pid in pids if pid not in forks]


def remains(platform, ids):
    """The directories and cgroups of instances."""
    places = (platform.settings.run_directory, "/sys/fs/cgroup")
    folders = [(folder, names) for place in places for folder, names, _ in os.walk(place)]
    return [Path(folder, name) for folder, names in folders for name in names if name in ids]


def test_a_burst_loads_the_code_once_more_and_forks_the_rest(one_lane):
    one_lane.deploy("slow", SLOW)

    answers = burst(one_lane, "slow")

    assert len({answer.text for answer in answers}) == 8
    until(lambda: len(loads(one_lane, "slow")) == 2, why="not two loads in the log")
    assert 0.0 in {loads_ms(answer) for answer in answers}
    _, forks, others = family(one_lane, "slow")
    assert len(forks) >= 3
    assert len(others) == 1


def test_code_that_starts_threads_is_loaded_by_each_instance(one_lane):
    one_lane.deploy("threaded", THREADED + SLOW)

    burst(one_lane, "threaded")

    ids = {instance["id"] for instance in one_lane.instances("threaded")}
    assert len(ids) >= 4
    until(lambda: ids <= set(loads(one_lane, "threaded")), why="an instance has not loaded the code")
    events = [json.loads(line) for line in one_lane.log().splitlines() if "instances_not_forked" in line]
    reasons = [event["reason"] for event in events if event["revision"] == "threaded@1"]
    assert reasons == ["loading it started a thread"]


def test_code_that_loads_quickly_is_loaded_by_each_instance(one_lane):
    names = (f"quick-{number}" for number in count())

    def unforked():
        """Whether all instances of one more function have loaded it; on a busy machine nothing loads quickly."""
        name = next(names)
        one_lane.deploy(name, QUICK)
        burst(one_lane, name, 6)
        instances = one_lane.instances(name)
        return len({parent(instance["pid"]) for instance in instances}) == 1 and (name, instances)

    name, instances = until(unforked, why="code that loads quickly is forked")
    assert len(instances) > 1
    ids = {instance["id"] for instance in instances}
    until(lambda: ids <= set(loads(one_lane, name)), why="an instance has not loaded the code")


def test_a_template_that_dies_is_replaced_by_instances_that_load(one_lane):
    one_lane.deploy("orphans", SLOW)
    burst(one_lane, "orphans")
    template, forks, _ = family(one_lane, "orphans")

    os.kill(template, signal.SIGKILL)

    until(lambda: not any(map(lives, forks)), why="forks live on")
    until(lambda: len(one_lane.instances("orphans")) == 1, why="dead forks are listed")
    burst(one_lane, "orphans")
    until(lambda: len(loads(one_lane, "orphans")) > 2, why="nothing was loaded again")


def test_a_template_ends_after_the_last_instance(one_lane):
    one_lane.deploy("brief", SLOW)
    burst(one_lane, "brief")
    template, forks, _ = family(one_lane, "brief")

    for instance in one_lane.instances("brief"):
        assert one_lane.client.delete(f"/instances/{instance['id']}").status_code == 204
    until(lambda: not one_lane.instances("brief"), why="instances stay")
    until(lambda: not lives(template), why="the template stays")
    assert not any(map(lives, forks))


def test_a_killed_lane_leaves_neither_template_nor_forks(one_lane):
    one_lane.deploy("left", SLOW)
    burst(one_lane, "left")
    template, forks, _ = family(one_lane, "left")
    ids = [instance["id"] for instance in one_lane.instances("left") if instance["pid"] in forks]
    lane = one_lane.children()["lane-0"]
    assert len(remains(one_lane, ids)) >= 2 * len(ids)

    os.kill(lane, signal.SIGKILL)

    until(lambda: not any(map(lives, [template, *forks])), why="the template or a fork lives on")
    until(lambda: one_lane.children().get("lane-0", lane) != lane, why="the lane was not started anew")
    one_lane.wait_ready()
    until(lambda: not remains(one_lane, ids), why="directories or cgroups are left")
    burst(one_lane, "left")
