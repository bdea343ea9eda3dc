"""Lanes that are killed and started anew: their instances go on, and serve the next request without a cold start."""

import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from martlet.node.adoption import RECORD
from tests.system.conftest import plain_client, until

pytestmark = pytest.mark.slow

TOKEN = "import os, time\nTOKEN = os.urandom(8).hex()\n"
"""Tells instances apart: it is drawn when the code is loaded."""

SAYS_ITS_TOKEN = TOKEN + "def handle(r):\n    print('said', r.get_text())\n    return TOKEN\n"
SLEEPS = TOKEN + "def handle(r):\n    time.sleep(float(r.get_text()))\n    return TOKEN\n"


@pytest.fixture(scope="module")
def one_lane(make_platform):
    platform = make_platform(lanes=1, disable_container=True, disable_microvm=True)
    platform.start()
    return platform


def kill_lane(platform, number=0):
    """Kills a lane that has noted down its instances, and waits until the next one answers."""
    # As the platform sees it: one with mounts of its own has memory mounted there.
    directory = Path(f"/proc/{platform.process.pid}/root{platform.settings.run_directory}/lane-{number}")

    def has_noted_down_all() -> bool:
        """Whether it has those that live now: of those before, some may have ended meanwhile."""
        mine = [i["id"] for i in platform.client.get("/instances").json() if i["node"] == f"lane-{number}"]
        return all((directory / instance / RECORD).exists() for instance in mine)

    until(has_noted_down_all, why="the lane has not noted down its instances")
    old = platform.children()[f"lane-{number}"]
    os.kill(old, signal.SIGKILL)
    until(
        lambda: platform.children().get(f"lane-{number}", old) != old,
        why="the lane was not started anew",
    )
    platform.wait_ready()


def pids(platform, name):
    return {instance["pid"] for instance in platform.instances(name)}


def call_and_lose(platform, name, content):
    """Sends a request that a killed lane will not answer."""
    with pytest.raises(httpx2.TransportError):
        platform.invoke(name, content=content)


def is_warm(response):
    """Whether a request waited for no instance to start: `Server-Timing` has no ``cell`` then."""
    return "cell;" not in response.headers["server-timing"]


def test_the_request_after_a_killed_lane_is_warm(one_lane):
    one_lane.deploy("warm", SAYS_ITS_TOKEN)
    token, before = one_lane.invoke("warm").text, one_lane.instances("warm")

    for _ in range(3):
        kill_lane(one_lane)
        answer = one_lane.invoke("warm")
        assert answer.text == token
        assert is_warm(answer)

    (old,), (new,) = before, one_lane.instances("warm")
    assert (new["id"], new["pid"], new["created"]) == (old["id"], old["pid"], old["created"])


@contextmanager
def load(platform, name):
    """Invokes a function all the time; yields the list of what it answers, with None for a broken connection."""
    answers, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            try:
                with plain_client(platform.url, headers=platform.client.headers, timeout=30) as client:
                    while not stop.is_set():
                        answers.append(client.post(f"/invoke/{name}").text)
                        stop.wait(0.005)  # nor does one that is busy with clients
            except httpx2.TransportError:
                answers.append(None)
                stop.wait(0.05)  # a machine that is busy with refused connections starts no lane

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_under_load_no_instance_is_lost_with_its_lane(one_lane):
    one_lane.deploy("busy", SAYS_ITS_TOKEN, max_instances=1)
    token = one_lane.invoke("busy").text
    with load(one_lane, "busy") as answers:
        for _ in range(3):
            until(
                lambda: answers[-20:].count(token) == 20, why=f"{token} does not answer alone: {set(answers)}"
            )
            kill_lane(one_lane)
            answers.append(None)
    assert set(answers) == {None, token}
    assert one_lane.invoke("busy").text == token


def test_what_an_adopted_instance_prints_is_in_the_logs(one_lane):
    one_lane.deploy("prints", SAYS_ITS_TOKEN)
    one_lane.invoke("prints", content="before")
    kill_lane(one_lane)

    request_id = one_lane.invoke("prints", content="after").headers["x-request-id"]

    def printed():
        lines = one_lane.client.get("/functions/prints/logs").json()
        return [line for line in lines if line["message"] == "said after"]

    (line,) = until(printed, why="the line is not in the logs")
    assert line["request_id"] == request_id


def test_an_instance_that_runs_a_lost_request_is_free_when_that_is_over(one_lane):
    one_lane.deploy("sleeps", SLEEPS, timeout=20, max_instances=1)
    token, before = one_lane.invoke("sleeps", content="0").text, pids(one_lane, "sleeps")
    thread = threading.Thread(target=call_and_lose, args=(one_lane, "sleeps", "1"))
    thread.start()
    until(lambda: one_lane.instances("sleeps")[0]["state"] == "busy", why="the request does not run")
    (pid,) = before
    os.kill(pid, signal.SIGSTOP)  # it answers nobody before the lane is killed, however long that takes
    kill_lane(one_lane)
    os.kill(pid, signal.SIGCONT)
    thread.join()

    until(lambda: pids(one_lane, "sleeps") == before, why="the instance has not come back")
    assert one_lane.invoke("sleeps", content="0").text == token


def test_an_instance_that_never_gets_free_is_ended_after_its_timeout(one_lane):
    one_lane.deploy("stuck", SLEEPS, timeout=1, max_instances=1)
    token = one_lane.invoke("stuck", content="0").text
    (pid,) = pids(one_lane, "stuck")
    os.kill(pid, signal.SIGSTOP)
    kill_lane(one_lane)

    until(lambda: not os.path.exists(f"/proc/{pid}"), why="the instance was not ended")
    assert one_lane.invoke("stuck", content="0").text != token


def test_instances_that_nothing_points_at_any_more_are_not_adopted(one_lane):
    one_lane.deploy("replaced", SLEEPS)
    old = one_lane.invoke("replaced", content="0").text
    (pid,) = pids(one_lane, "replaced")
    thread = threading.Thread(target=call_and_lose, args=(one_lane, "replaced", "30"))
    thread.start()
    until(lambda: one_lane.instances("replaced")[0]["state"] == "busy", why="the request does not run")
    one_lane.deploy("replaced", SLEEPS + "\n")
    assert os.path.exists(f"/proc/{pid}"), "the old instance did not drain"
    kill_lane(one_lane)
    thread.join()

    until(lambda: not os.path.exists(f"/proc/{pid}"), why="the old instance was not ended")
    assert one_lane.invoke("replaced", content="0").text != old


def test_there_are_no_more_instances_than_allowed_after_the_home_lane_was_killed(platform):
    platform.deploy("single", SAYS_ITS_TOKEN, max_instances=1)
    with load(platform, "single") as answers:
        for lane in (0, 1):
            until(lambda: len(answers) > 20 and None not in answers[-20:], why="the load does not flow")
            kill_lane(platform, lane)
            answers.append(None)
    until(lambda: len(pids(platform, "single")) == 1, why="there are more instances than max_instances")
    platform.client.delete("/functions/single")
