"""Functions in containers of Docker Engine and podman, on a real platform."""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.container_engines import DockerOfTests, PodmanOfTests
from tests.system.conftest import until
from tests.system.holdings import Surplus, holdings, nothing_left, settled
from tests.system.test_adoption import SAYS_ITS_TOKEN, kill_lane
from tests.system.test_container_faults import answered

pytestmark = [pytest.mark.slow, pytest.mark.root]


ENGINES = {"docker": DockerOfTests, "podman": PodmanOfTests}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    engine = ENGINES[request.param]()
    yield engine
    engine.remove()


@pytest.fixture(scope="module")
def containers(make_platform, engine):
    platform = make_platform(
        lanes=1, min_cells=1, max_cells=1, container_runtime=engine.name, disable_microvm=True
    )
    platform.environment = {**os.environ, **engine.environment}
    platform.start()
    platform.deploy("usual", SAYS_ITS_TOKEN, execution_mode="container", min_instances=1)
    yield platform
    platform.stop()
    until(lambda: not engine.containers(), why="containers outlive the platform")
    nothing_left(platform)


@pytest.fixture(scope="module")
def at_rest(containers, engine):
    """What the platform holds before anything is done to it."""
    return settled(containers), len(engine.containers())


@pytest.fixture(autouse=True)
def unharmed(containers, engine, at_rest):
    """Whatever was done to it: afterwards the platform starts containers, and holds what it held before."""
    yield
    containers.deploy("afterwards", SAYS_ITS_TOKEN, execution_mode="container")
    assert containers.invoke("afterwards").status_code == 200
    for function in containers.client.get("/functions").json():
        if function["name"] != "usual":
            containers.client.delete(f"/functions/{function['name']}")
    before, count = at_rest
    until(lambda: holdings(containers) == before, why=Surplus(containers, before))
    until(lambda: len(engine.containers()) == count, why="the engine has more than it had")


def test_a_container_outlives_its_lane_and_is_replaced_when_it_is_killed(containers):
    containers.deploy("stays", SAYS_ITS_TOKEN, execution_mode="container")
    token, (before,) = containers.invoke("stays").text, containers.instances("stays")

    kill_lane(containers)

    assert containers.invoke("stays").text == token
    assert containers.instances("stays")[0]["pid"] == before["pid"]
    os.kill(before["pid"], signal.SIGKILL)
    until(
        lambda: before["id"] not in [each["id"] for each in containers.instances("stays")],
        why="it is still there",
    )
    assert containers.invoke("stays").text != token


def test_a_killed_platform_leaves_nothing_once_the_next_one_runs(containers, engine):
    containers.deploy("lost", SAYS_ITS_TOKEN, execution_mode="container")
    containers.invoke("lost")
    left = set(engine.containers())

    for process in [containers.process.pid, *containers.children().values()]:
        os.kill(process, signal.SIGKILL)
    containers.process.wait()
    containers.start()

    until(lambda: not left & set(engine.containers()), why="containers outlive the platform")
    assert containers.invoke("lost").status_code == 200


def test_a_container_that_its_engine_kills_is_replaced(containers, engine):
    token, (instance,) = containers.invoke("usual").text, containers.instances("usual")
    cgroup = Path(f"/proc/{instance['pid']}/cgroup").read_text()
    (container,) = [each for each in engine.containers() if each in cgroup]

    engine.kill_container(container)

    until(lambda: not Path(f"/proc/{instance['pid']}").exists(), why="it lives")
    assert until(lambda: answered(containers, "usual"), why="no answer") != token


def test_an_engine_that_is_gone_is_said_and_waited_for(containers, engine):
    token, known = containers.invoke("usual").text, engine.containers()
    try:
        engine.strike_down(containers.settings.run_directory)
        end_cells(containers, known)
        until(lambda: containers.client.get("/nodes").json()[0]["cells"] == 1, why="cells stand ready still")
        refused = containers.client.post(
            "/functions",
            json={
                "name": "refused",
                "code": SAYS_ITS_TOKEN,
                "config": {"execution_mode": "container", "network": "none"},
            },
        )
        assert (refused.status_code, refused.json()["code"]) == (503, "no_capacity"), refused.text
        assert re.search(engine.words, refused.json()["detail"]), refused.text
        assert containers.invoke("usual").text == token
    finally:
        engine.restore()
    assert until(lambda: answered(containers, "usual"), why="no answer")


def test_an_engine_that_is_killed_while_containers_start_leaves_none_too_many(containers, engine):
    known = set(engine.containers())
    end_cells(containers, known)
    until(lambda: set(engine.containers()) - known, why="no container is being started")
    try:
        engine.strike_down(containers.settings.run_directory)
    finally:
        engine.restore()
    assert until(lambda: answered(containers, "usual"), why="no answer")


def end_cells(platform, known):
    """Ends those of some containers that are no instances, where they have not ended with their engine."""
    pids = {instance["pid"] for instance in platform.client.get("/instances").json()}
    for place in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            pid, cgroup = int(place.parent.name), place.read_text()
            if any(container in cgroup for container in known) and pid not in pids and first_of_all(pid):
                os.kill(pid, signal.SIGKILL)


def first_of_all(pid):
    """Whether a process is the first one of a PID namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return status.split("NSpid:")[1].split("\n")[0].split()[1:] == ["1"]
