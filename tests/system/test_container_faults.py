"""Whatever fails below containers: clients and deployers are told, it heals, and nothing is left of it."""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from martlet.sandbox.engine import ENGINES
from tests.conftest import require
from tests.system.conftest import until
from tests.system.holdings import Surplus, holdings, nothing_left, settled
from tests.system.test_adoption import SAYS_ITS_TOKEN, SLEEPS, kill_lane

pytestmark = [pytest.mark.slow, pytest.mark.root]

SLOW = """#!/bin/sh
sleep 2
exec {engine} "$@"
"""
BROKEN = (
    "echo nonsense; exit 3",
    "kill -9 $$",
    "head -c 200 /dev/urandom; head -c 200 /dev/urandom >&2; exit 0",
    'while [ "$1" ]; do [ "$1" = --pid-file ] && echo 1 >"$2"; shift; done',  # which names a stranger
)


class Engine:
    """The program that a platform finds under the name of an engine, which may be made to fail."""

    def __init__(self, name, folder):
        self.name, self.real, self.program = name, shutil.which(name), folder / name
        self.program.symlink_to(self.real)

    @contextmanager
    def replaced(self, script=None):
        """Has another program in its place, or none."""
        self.program.unlink()
        if script is not None:
            self.program.write_text(script.format(engine=self.real))
            self.program.chmod(0o755)
        try:
            yield
        finally:
            self.program.unlink(missing_ok=True)
            self.program.symlink_to(self.real)


@pytest.fixture(scope="module", params=["crun", "runc"])
def engine(request, tmp_path_factory):
    require(shutil.which(request.param), request.param)
    return Engine(request.param, tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="module")
def containers(make_platform, engine):
    platform = make_platform(
        lanes=1, min_cells=1, max_cells=1, container_runtime=engine.name, disable_microvm=True
    )
    platform.environment = {**os.environ, "PATH": f"{engine.program.parent}:{os.environ['PATH']}"}
    platform.start()
    platform.deploy("stays", SAYS_ITS_TOKEN, execution_mode="container", min_instances=1)
    yield platform
    platform.stop()
    nothing_left(platform)


@pytest.fixture(scope="module")
def at_rest(containers):
    """What the platform holds before anything is done to it."""
    found = settled(containers)
    assert found["processes"] > 4
    assert found["cgroups"] > 2
    return found


@pytest.fixture(autouse=True)
def unharmed(containers, at_rest):
    """Whatever was done to it: afterwards the platform starts containers, and holds what it held before."""
    yield
    containers.deploy("afterwards", SAYS_ITS_TOKEN, execution_mode="container")
    assert containers.invoke("afterwards").status_code == 200
    for function in containers.client.get("/functions").json():
        if function["name"] != "stays":
            containers.client.delete(f"/functions/{function['name']}")
    until(lambda: holdings(containers) == at_rest, why=Surplus(containers, at_rest))


def answered(platform, name):
    """Returns what a function answers, once it does."""
    answer = platform.invoke(name)
    return answer.text if answer.status_code == 200 else None


def refused(platform, name):
    """Deploys what cannot be started now; returns what the deployer is told."""
    config = {"execution_mode": "container", "network": "none"}
    answer = platform.client.post("/functions", json={"name": name, "code": SAYS_ITS_TOKEN, "config": config})
    assert (answer.status_code, answer.json()["code"]) == (503, "no_capacity"), answer.text
    return answer.json()["detail"]


def without_cells(platform):
    """Ends the cells that stand ready."""
    instances = {instance["id"] for instance in platform.client.get("/instances").json()}
    for pid in containers_of(platform):
        with suppress(OSError):
            cgroup = Path(f"/proc/{pid}/cgroup").read_text()
            if not any(instance in cgroup for instance in instances):
                os.kill(pid, signal.SIGKILL)
    # The one that is left is a process.
    until(lambda: platform.client.get("/nodes").json()[0]["cells"] == 1, why="cells stand ready still")


def containers_of(platform):
    """Returns the processes that keepers have started in containers."""
    found = set()
    for pid in set().union(*map(_children, keepers_of(platform))):
        with suppress(OSError):
            if "-container/" in Path(f"/proc/{pid}/cgroup").read_text():
                found.add(pid)
    return found


def keepers_of(platform):
    """Returns the keepers: the first processes of their PID namespaces."""
    run = f"{platform.settings.run_directory}/".encode()
    return [
        int(place.parent.name)
        for place in Path("/proc").glob("[0-9]*/cmdline")
        if _is(place, b"martlet.sandbox import keeper", run)
        and Path(place.parent, "status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    ]


def _is(command, *marks):
    try:
        text = command.read_bytes()
    except OSError:
        return False
    return all(mark in text for mark in marks)


def test_an_engine_that_is_gone_is_said_and_what_runs_goes_on(containers, engine):
    token = containers.invoke("stays").text
    with engine.replaced():
        without_cells(containers)
        assert f"No such file or directory: '{engine.program}'" in refused(containers, "gone")
        assert containers.invoke("stays").text == token


def test_an_engine_that_fails_is_said_and_what_runs_goes_on(containers, engine):
    token = containers.invoke("stays").text
    containers.deploy("asked", SAYS_ITS_TOKEN, execution_mode="container", idle_ttl=0.1)
    until(lambda: not containers.instances("asked"), why="it was not scaled to zero")
    for script in BROKEN:
        with engine.replaced(f"#!/bin/sh\n{script}\n"):
            without_cells(containers)
            assert engine.name in refused(containers, "broken"), script
            answer = containers.invoke("asked")
            assert (answer.status_code, answer.json()["code"]) == (503, "no_capacity")
            assert str(containers.settings.run_directory) not in answer.text
            assert containers.invoke("stays").text == token
    assert containers.invoke("asked").status_code == 200


def test_an_engine_that_hangs_is_not_waited_for(containers, engine):
    token = containers.invoke("stays").text
    with engine.replaced("#!/bin/sh\nsleep 600 & wait\n"):
        without_cells(containers)
        assert f"{engine.name} has not started a container within 10 s" in refused(containers, "hangs")
        assert containers.invoke("stays").text == token


def test_a_container_that_its_engine_deletes_is_replaced(containers, engine):
    containers.deploy("deleted", SAYS_ITS_TOKEN, execution_mode="container")
    token, (instance,) = containers.invoke("deleted").text, containers.instances("deleted")
    (keeper,) = [each for each in keepers_of(containers) if instance["pid"] in _children(each)]
    seen = Path(f"/proc/{keeper}/root")
    folder = f"{containers.settings.run_directory}/lane-0/containers/*/cells/{instance['id']}"
    (place,) = seen.glob(folder.lstrip("/"))
    state = Path("/", place.relative_to(seen), "state")

    inside = ("nsenter", f"--target={keeper}", "--mount", "--pid")
    command = (engine.real, *ENGINES[engine.name].options, f"--root={state}")
    subprocess.run([*inside, *command, "delete", "--force", instance["id"]], capture_output=True)
    # Whatever it says: the keeper may have buried the container, and its state, before the engine was done.
    until(lambda: not Path(f"/proc/{instance['pid']}").exists(), why="the engine has not ended it")

    assert containers.invoke("deleted").text != token


def _children(pid):
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_a_request_whose_container_is_killed_is_told_so(containers):
    containers.deploy("struck", SLEEPS, execution_mode="container")
    assert containers.invoke("struck", content="0").status_code == 200
    (instance,) = containers.instances("struck")

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(containers.invoke, "struck", content="60")
        until(lambda: containers.instances("struck")[0]["state"] == "busy", why="it is not busy")
        os.kill(instance["pid"], signal.SIGKILL)

    assert (answer.result().status_code, answer.result().json()["code"]) == (502, "function_crashed")
    assert containers.invoke("struck", content="0").status_code == 200


def test_a_keeper_that_is_killed_takes_its_containers_along_and_is_replaced(containers):
    token = containers.invoke("stays").text
    before, living = keepers_of(containers), containers_of(containers)

    for keeper in before:
        os.kill(keeper, signal.SIGKILL)

    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in living), why="containers are left")
    assert until(lambda: answered(containers, "stays"), why="no answer") != token
    assert not set(before) & set(keepers_of(containers))


def test_a_lane_that_is_killed_while_containers_start_leaves_none_too_many(containers, engine):
    token = containers.invoke("stays").text
    with engine.replaced(SLOW):
        without_cells(containers)
        until(lambda: _running(engine.program), why="no container is being started")
        kill_lane(containers)
        assert containers.invoke("stays").text == token


def _running(program):
    return any(_is(place, f"{program}\0".encode()) for place in Path("/proc").glob("[0-9]*/cmdline"))


def test_a_platform_that_is_killed_while_containers_start_and_serve_begins_anew(containers, engine):
    containers.invoke("stays")
    left = containers_of(containers) | set(keepers_of(containers))
    with engine.replaced(SLOW):
        without_cells(containers)
        until(lambda: _running(engine.program), why="no container is being started")
        for process in [containers.process.pid, *containers.children().values()]:
            os.kill(process, signal.SIGKILL)
        containers.process.wait()
    containers.start()

    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
    assert until(lambda: answered(containers, "stays"), why="no answer")
