"""``kill -9`` of each kind of process of a machine, under requests that come through another one."""

import time

import pytest

from tests.cluster.conftest import Machines
from tests.cluster.kills import kill_one
from tests.cluster.traffic import Later, Traffic, listed, placed, told
from tests.system.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    "kind",
    [
        "lane",
        *(
            pytest.param(each, marks=pytest.mark.rare)
            for each in ("cell", "zygote", "forkserver", "supervisor")
        ),
    ],
)
def test_what_is_killed_on_a_node_costs_what_it_was_running(machines: Machines, kind: str) -> None:
    function = f"kill-{kind}"
    holder, other = placed(machines, function, max_instances=2)
    later = Later([machines.first, other], function)
    with Traffic([machines.first, other], function, clients=1) as traffic:
        later.ask(6, seconds=0.2)
        began = time.monotonic()
        kill_one(holder, kind)
        traffic.goes_on()
        later.ask(4)
        listed(machines)
        until(lambda: holder.invoke(function).status_code == 200, why="it does not serve again")
        back = time.monotonic() - began
        states = later.ended()
        traffic.goes_on(5)
    told(f"{kind} of a node killed", machines, traffic, began, serves_after=back, later=dict(states))
    assert traffic.lost <= traffic.clients  # each had one under way
    assert set(traffic.codes) <= {"function_crashed"}
    assert states == {"succeeded": 10}
    assert not later.refused


@pytest.mark.parametrize("kind", ["control", pytest.param("lane", marks=pytest.mark.rare)])
def test_what_is_killed_on_a_gateway_costs_its_own_clients_only(machines: Machines, kind: str) -> None:
    function = f"through-{kind}"
    _, other = placed(machines, function)
    with (
        Traffic([machines.first], function) as through,
        Traffic([other], function, clients=1) as beside,
    ):
        began = time.monotonic()
        kill_one(machines.first, kind)
        until(
            lambda: machines.second.client.get("/functions").status_code == 200,
            why="management does not come back",
        )
        managed = time.monotonic() - began
        through.goes_on()
        beside.goes_on(5)
    told(f"{kind} of a gateway killed", machines, through, began, managed_after=managed)
    if kind == "control":
        assert through.lost == 0
    # Its clients' connections break, and none is taken until it is back.
    assert set(through.codes) <= {"broken off"}
    assert beside.lost == 0
