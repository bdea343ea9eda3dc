"""Two machines with control: one that is drained or stopped lets the other lead, and does not lead any more."""

import signal
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Machine, Machines, making_machines
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Three machines, and a further one with control."""
    with making_machines(tmp_path_factory.mktemp("l"), "gateway,control") as made:
        yield made


def leading(machines: Machines) -> Machine | None:
    """Returns the machine that leads, if all with control say the same."""
    controls = (machines.first, *machines.more)
    by_id = {(each.data / "node-id").read_text(): each for each in controls}
    said = [
        [node["id"] for node in each.client.get("/nodes").json() if node["leader"]]
        for each in controls
        if each.process is not None and each.process.poll() is None
    ]
    return by_id[said[0][0]] if said[0] and all(each == said[0] for each in said) else None


def test_a_leader_that_is_drained_or_stopped_hands_over_the_lead(machines: Machines) -> None:
    (fourth,) = machines.more
    first = until(lambda: leading(machines), within=60, why="nobody leads")
    (other,) = {machines.first, fourth} - {first}
    identity = (first.data / "node-id").read_text()
    assert other.client.put(f"/nodes/{identity}/drain").status_code == 200
    until(lambda: leading(machines) is other, within=60, why="who is drained leads on")
    assert other.client.delete(f"/nodes/{identity}/drain").status_code == 204
    process = other.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    until(lambda: process.poll() is not None or leading(machines) is first, within=60, why="nobody succeeds")
    assert process.wait(90) == 0
    until(lambda: leading(machines) is first, within=60, why="nobody leads after the stop")
    identity = (first.data / "node-id").read_text()
    assert first.client.put(f"/nodes/{identity}/drain").status_code == 200
    until(lambda: leading(machines) is first, within=60, why="the only control does not lead")
