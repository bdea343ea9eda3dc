"""Machines that are drained: who may be, who runs their functions meanwhile, and that it is remembered."""

from typing import Any

import httpx2
import pytest

from martlet.control.drains import gives_way
from martlet.model import Drain, ExecutionMode, Node, NodeLane, Role
from martlet.peer_address import PeerAddress
from tests.unit.control.conftest import Platform, assert_problem

pytestmark = pytest.mark.anyio


def node(name: str, **facts: Any) -> Node:
    known: dict[str, Any] = {
        "roles": (Role.NODE,),
        "memory_free": 2**34,
        "lanes": (NodeLane(name="lane-0", state="ready", instances=1, capacity=10),),
    }
    return Node(
        id=name,
        host=name,
        address=None,
        version="1",
        rungs=(ExecutionMode.PROCESS,),
        runtimes=("python3.11",),
        cores=2,
        memory=2**34,
        load=0.0,
        started=0.0,
        peer=PeerAddress("10.0.0.1", 8001),
        cpu_free=2000,
        **{**known, **facts},
    )


async def join(platform: Platform, *nodes: Node) -> None:
    control = platform.control
    lease = await control.registry.join(60)
    for each in nodes:
        await control.view.catch_up(await control.registry.put_node(each, lease))


def loads_elsewhere(platform: Platform) -> list[str]:
    """Returns what other machines were asked to load."""
    asked = [target for lane in platform.lanes for _, target in lane.asked]
    return [target for target in asked if target.startswith("/_node/at/") and target.endswith("/load")]


async def states(client: httpx2.AsyncClient) -> dict[str, str]:
    return {each["id"]: each["state"] for each in (await client.get("/nodes")).json()}


async def test_a_machine_is_drained_until_it_is_resumed(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    await join(platform, node("one"), node("two"), node("three", stopping=True))
    answer = await client.put("/nodes/one/drain")
    assert (answer.status_code, answer.json()["state"]) == (200, "draining")
    assert (await client.put("/nodes/one/drain")).status_code == 200
    found = await states(client)
    assert (found["one"], found["two"], found["three"]) == ("draining", "ready", "stopping")
    metrics = (await client.get("/metrics")).text
    assert 'martlet_nodes{state="draining"} 1.0' in metrics
    assert 'martlet_nodes{state="away"} 0.0' in metrics
    for lane in platform.lanes:
        assert lane.synced[-1] == platform.control.view.revision  # the next request sees it
    assert (await client.delete("/nodes/one/drain")).status_code == 204
    assert (await states(client))["one"] == "ready"
    assert_problem(await client.delete("/nodes/one/drain"), 404, "not_found")


async def test_the_store_remembers_a_drain(platform: Platform, client: httpx2.AsyncClient) -> None:
    await join(platform, node("one"), node("two"))
    await client.put("/nodes/one/drain")
    await platform.stop()
    await platform.start()
    assert platform.control.view.withdrawing == {"one"}


async def test_the_last_machine_that_runs_functions_is_not_drained(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    assert_problem(await client.put("/nodes/nobody/drain"), 404, "not_found")
    gateway = node("gateway", roles=(Role.GATEWAY,))
    await join(platform, gateway, node("one"), node("two"), node("leaving", stopping=True))
    assert (await client.put("/nodes/gateway/drain")).status_code == 200
    assert (await client.put("/nodes/one/drain")).status_code == 200
    problem = assert_problem(await client.put("/nodes/two/drain"), 409, "conflict")
    assert "start another" in problem["detail"]


async def test_what_is_warm_only_there_is_started_elsewhere_first(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    for name in ("lonely", "shared", "cold"):
        await platform.create(name, max_instances=1)
    warm = {"lonely@1": (1, 1), "shared@1": (1, 1), "lonely@7": (1, 1)}
    await join(platform, node("one", warm=warm), node("two", warm={"shared@1": (1, 0)}))
    assert (await client.put("/nodes/one/drain")).status_code == 200
    assert loads_elsewhere(platform) == ["/_node/at/two/load"]


async def test_a_machine_is_drained_even_where_nothing_can_be_started_elsewhere(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    await platform.create("large", memory="1Gi")
    await join(platform, node("one", warm={"large@1": (1, 1)}), node("two", memory_free=0))
    assert (await client.put("/nodes/one/drain")).status_code == 200
    assert platform.control.view.withdrawing == {"one"}


async def test_whose_key_is_limited_to_functions_drains_nothing(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    await join(platform, node("one"), node("two"))
    limited = {"x-martlet-functions": "hello"}
    assert_problem(await client.put("/nodes/one/drain", headers=limited), 403, "forbidden")
    assert_problem(await client.delete("/nodes/one/drain", headers=limited), 403, "forbidden")


async def test_a_machine_gives_way_while_another_one_with_control_does_not_withdraw(
    platform: Platform,
) -> None:
    view = platform.control.view
    await join(platform, node("one", roles=(Role.CONTROL,)), node("runs"))
    assert not gives_way(view, "one")
    await view.catch_up(await platform.control.registry.put_drain(Drain(node="one", since=0.0)))
    assert not gives_way(view, "one"), "there is no other"
    await join(platform, node("two", roles=(Role.CONTROL,)))
    assert gives_way(view, "one")
    assert not gives_way(view, "two")
    await join(platform, node("two", roles=(Role.CONTROL,), stopping=True))
    assert not gives_way(view, "one")
