"""What a load balancer is told of a machine."""

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from martlet.errors import Unavailable
from martlet.gateway.readiness import Readiness
from martlet.http.exchange import Exchange
from martlet.http.inward import Inward
from martlet.model import Node, NodeLane, Role
from martlet.node.withdrawal import Withdrawal
from martlet.storage.registry import RegistryView
from tests.unit.gateway.machines import node

pytestmark = pytest.mark.anyio


def machine(name: str, *roles: Role) -> Node:
    lanes = NodeLane(name="lane-0", state="ready"), NodeLane(name="lane-1", state="away")
    return node(name, roles=roles, lanes=lanes)


def readiness(*nodes: Node, manages: bool = False) -> tuple[Readiness, Withdrawal]:
    known = SimpleNamespace(nodes={node.id: node for node in nodes}, drains={}, functions={"hello": None})
    view = cast(RegistryView, known)
    withdrawal = Withdrawal(view, "own")
    return Readiness(view, "own", withdrawal, manages), withdrawal


def asked(method: bytes = b"GET") -> Exchange:
    return Inward(method, b"", "r1", 1000).exchange


async def test_a_gateway_without_control_answers_for_itself() -> None:
    ready, _ = readiness(machine("own", Role.GATEWAY), machine("other", Role.NODE))
    exchange = asked()
    assert ready.answer(exchange)
    response = await cast(Any, exchange.connection).response()
    assert response.status == 200
    assert orjson.loads(response.body) == {"status": "ready", "lanes": 1, "of": 2, "functions": 1}


async def test_control_answers_where_there_is_one_and_for_other_methods() -> None:
    assert not readiness(manages=True)[0].answer(asked())
    assert not readiness(machine("own", Role.NODE))[0].answer(asked(b"POST"))


@pytest.mark.parametrize("nodes", [[machine("other", Role.NODE)], [machine("own", Role.GATEWAY)]])
async def test_one_that_has_not_joined_or_knows_nobody_who_runs_functions_is_not_ready(
    nodes: list[Node],
) -> None:
    with pytest.raises(Unavailable):
        readiness(*nodes)[0].answer(asked())


@pytest.mark.parametrize("manages", [False, True])
async def test_one_that_stops_is_ready_no_more(manages: bool) -> None:
    ready, withdrawal = readiness(machine("own", Role.NODE), manages=manages)
    withdrawal.stop()
    with pytest.raises(Unavailable, match="being stopped"):
        ready.answer(asked())
