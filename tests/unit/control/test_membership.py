"""A machine among the nodes that a store knows."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from martlet.control.membership import Membership
from martlet.model import Node, NodeLane
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import Lease, StoreError

pytestmark = pytest.mark.anyio

NODE = Node(
    id="n1",
    host="one",
    address="10.0.0.1:8000",
    version="1",
    rungs=(),
    runtimes=(),
    cores=2,
    memory=1,
    load=0.5,
    lanes=(NodeLane(name="lane-0", state="ready"),),
    started=1.0,
)


class Shaky(MemoryStore):
    """A store whose leases a test ends, and that it makes unreachable."""

    def __init__(self) -> None:
        super().__init__()
        self.reachable = True
        self.granted: list[Lease] = []

    async def lease(self, ttl: float) -> Lease:  # type: ignore[override]
        if not self.reachable:
            raise StoreError("out of reach")
        self.granted.append(await super().lease(ttl))
        return self.granted[-1]


class Told:
    """Says what the node is, and how often it was asked."""

    def __init__(self) -> None:
        self.node = NODE
        self.asked = 0

    async def __call__(self) -> Node:
        self.asked += 1
        return self.node


@pytest.fixture
def store() -> Shaky:
    return Shaky()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def view(store: Shaky) -> AsyncIterator[RegistryView]:
    view = RegistryView(store)
    await view.start()
    yield view
    await view.close()


@pytest.fixture
async def membership(store: Shaky, told: Told) -> AsyncIterator[Membership]:
    membership = Membership(Registry(store), told, ttl=60, heartbeat=0.01)
    membership.open()
    yield membership
    await membership.close()


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_machine_is_known_until_it_leaves(membership: Membership, view: RegistryView) -> None:
    await eventually(lambda: view.nodes == {"n1": NODE})
    await membership.close()
    await eventually(lambda: view.nodes == {})


async def test_what_a_machine_says_of_itself_disturbs_nobody(
    membership: Membership, told: Told, view: RegistryView
) -> None:
    heard: list[str] = []
    view.on_change.append(lambda noun, _name: heard.append(noun))
    told.node = NODE.model_copy(update={"load": 1.5})
    await eventually(lambda: view.nodes == {"n1": told.node})
    assert heard == []


async def test_a_silent_machine_is_forgotten(store: Shaky, told: Told, view: RegistryView) -> None:
    membership = Membership(Registry(store), told, ttl=0.2, heartbeat=60)
    known: list[str] = []
    view.on_nodes.append(lambda: known.extend(view.nodes))
    membership.open()
    await eventually(lambda: known)
    await eventually(lambda: not view.nodes)
    await membership.close()


async def test_signs_of_life_outlast_the_lease(store: Shaky, told: Told, view: RegistryView) -> None:
    membership = Membership(Registry(store), told, ttl=4, heartbeat=0.01)
    membership.open()
    await eventually(lambda: view.nodes)
    await asyncio.sleep(4.1)
    assert view.nodes
    assert len(store.granted) == 1
    await membership.close()


async def test_what_has_not_changed_is_not_written_again(
    membership: Membership, store: Shaky, told: Told, view: RegistryView
) -> None:
    await eventually(lambda: told.asked > 5)
    assert await store.revision() == 1
    told.node = NODE.model_copy(update={"load": 1.5})
    await eventually(lambda: view.nodes["n1"].load == 1.5)


async def test_one_that_was_forgotten_joins_again(
    membership: Membership, store: Shaky, view: RegistryView
) -> None:
    await eventually(lambda: view.nodes)
    store.reachable = False
    await store.granted[0].revoke()
    await eventually(lambda: not view.nodes)
    store.reachable = True
    await eventually(lambda: view.nodes == {"n1": NODE})
    assert len(store.granted) == 2


async def test_what_a_machine_announces_is_known_at_once(
    store: Shaky, told: Told, view: RegistryView
) -> None:
    membership = Membership(Registry(store), told, ttl=60, heartbeat=60)
    membership.open()
    await eventually(lambda: view.nodes)
    told.node = NODE.model_copy(update={"stopping": True})
    await membership.announce()
    await eventually(lambda: view.withdrawing == {"n1"})
    await membership.close()


async def test_who_cannot_be_told_is_not_waited_for(store: Shaky, told: Told) -> None:
    store.reachable = False
    with pytest.raises(StoreError):
        await Membership(Registry(store), told).announce()
