"""Machines that do nothing but build: one is killed at it, and another goes on; logs and cancels come from anywhere."""

import json
from collections.abc import Iterator

import pytest

from martlet.builder.builds import CANCELLED
from tests.cluster.conftest import Machine, Machines, making_machines
from tests.example_runtime import write_runtime
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]

BUILD = "import time\\nfor second in range(12): print('second', second, flush=True); time.sleep(1)"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A gateway that manages, two that run functions, and two builders."""
    folder = tmp_path_factory.mktemp("b")
    write_runtime(folder / "runtimes/template")
    with (folder / "runtimes/template/runtime.toml").open("a") as description:
        description.write(f'\n[build]\ncommand = ["{{interpreter}}", "-S", "-c", "{BUILD}"]\n')
    runtimes = str(folder / "runtimes")
    with making_machines(
        folder, "builder", "builder", first="gateway,control", runtimes_path=runtimes
    ) as made:
        builders = {(each.data / "node-id").read_text() for each in made.more}
        nodes = made.first.client.get("/nodes").json()
        assert {each["id"] for each in nodes if "builder" in each["roles"]} == builders
        yield made


def begin(machine: Machine, name: str, code: str = "Hello $who!") -> str:
    """Deploys a function that takes a while to build; returns the build, which runs elsewhere."""
    body = {"name": name, "code": code, "config": {"runtime": "template"}}
    answer = machine.client.post("/functions?wait=false", json=body)
    assert answer.status_code == 202, answer.text
    build: str = answer.json()["id"]
    return build


def builder_of(machines: Machines, build: str) -> Machine:
    """Returns the machine that builds it, once one does."""
    nodes = {(each.data / "node-id").read_text(): each for each in machines.more}
    node = until(lambda: machines.third.client.get(f"/builds/{build}").json()["node"], within=60)
    return nodes[node]


def followed(machine: Machine, build: str) -> Iterator[str]:
    """Yields what a build says, until it has ended."""
    with machine.client.stream("GET", f"/builds/{build}/logs") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[len("data: ") :])["message"]


def test_a_build_whose_machine_is_killed_is_ended_by_another(machines: Machines) -> None:
    build = begin(machines.second, "slow")
    killed, said = None, []
    for message in followed(machines.third, build):
        said.append(message)
        if message == "second 1" and killed is None:
            killed = builder_of(machines, build)
            killed.kill()
    assert killed is not None
    done = machines.second.client.get(f"/builds/{build}").json()
    assert (done["state"], done["revision"]) == ("ready", 1), done
    (other,) = (each for each in machines.more if each is not killed)
    assert done["node"] == (other.data / "node-id").read_text()
    assert "the platform was restarted; this is attempt 2 of 3" in said
    assert said[-1] == "slow@1 serves"
    assert "second 11" in said
    for machine in machines.all:
        assert machine.client.get("/invoke/slow?who=Ada").text == "Hello Ada!"
    killed.launch()
    identity = (killed.data / "node-id").read_text()
    until(lambda: identity in {each["id"] for each in machines.first.client.get("/nodes").json()}, within=60)


def test_a_build_is_cancelled_through_a_machine_that_does_not_run_it(machines: Machines) -> None:
    build = begin(machines.second, "unwanted", "It was not built before.")
    messages = followed(machines.second, build)
    until(lambda: next(messages) == "second 0", within=60)
    answer = machines.third.client.delete(f"/builds/{build}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert [*messages][-1] == CANCELLED
    assert machines.second.client.get("/functions/unwanted").status_code == 404
    assert machines.second.client.delete(f"/builds/{build}").status_code == 409


def test_without_a_builder_it_is_said(machines: Machines) -> None:
    """Last, because it stops those that there are."""
    for builder in machines.more:
        builder.stop()
    until(lambda: not any("builder" in each["roles"] for each in machines.first.client.get("/nodes").json()))
    body = {"name": "none", "code": "Hello $who!", "config": {"runtime": "template"}}
    answer = machines.second.client.post("/functions", json=body)
    assert answer.status_code == 503
    assert "no machine with the role builder is alive" in answer.json()["detail"]
