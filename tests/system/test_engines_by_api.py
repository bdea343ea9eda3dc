"""Functions in containers of Docker Engine and podman, on a real platform."""

import os
import signal

import pytest

from tests.container_engines import DockerOfTests, PodmanOfTests
from tests.system.conftest import until
from tests.system.test_adoption import SAYS_ITS_TOKEN, kill_lane

pytestmark = pytest.mark.slow


ENGINES = {"docker": DockerOfTests, "podman": PodmanOfTests}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    return ENGINES[request.param]()


@pytest.fixture(scope="module")
def containers(make_platform, engine):
    platform = make_platform(lanes=1, min_cells=1, max_cells=1, container_runtime=engine.name)
    platform.environment = {**os.environ, **engine.environment}
    platform.start()
    yield platform
    platform.stop()
    assert engine.containers() == []


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

    assert not left & set(engine.containers())
    assert containers.invoke("lost").status_code == 200
