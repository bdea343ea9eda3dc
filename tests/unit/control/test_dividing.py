"""The leader divides what nodes ask for, and gives nothing to one before another has given it up."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import ceil
from typing import Any

import pytest

from martlet.control import dividing
from martlet.control.dividing import STARTING, Dividing
from martlet.model import ExecutionMode, FunctionConfig, Node, NodeLane, Revision
from martlet.scheduling.shares import redivided
from martlet.scheduling.trend import Pace
from martlet.storage.fenced import FencedStore
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView

pytestmark = pytest.mark.anyio


class Cluster:
    """Nodes that say what a test lets them say."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.registry = Registry(self.store)
        self.view = RegistryView(self.store)
        self.dividing = Dividing(FencedStore(self.store, lambda: None), self.view, Pace())
        self.now = 0.0

    async def deploy(self, created: float = 1.0, **config: Any) -> None:
        """Stores the first revision of the function ``f``."""
        made = Revision(
            function="f",
            number=1,
            config=FunctionConfig(**{"max_instances": 10, **config}),
            code="0" * 64,
            created=created,
        )
        await self.view.catch_up(await self.registry.put_revision(made))

    async def say(
        self,
        name: str,
        held: int = 0,
        calls: float = 0.0,
        *,
        forwarded: dict[str, float] | None = None,
        seen: bool = True,
        state: str = "ready",
        capacity: int = 50,
    ) -> None:
        """A node says how it is."""
        described = Node(
            id=name,
            host=name,
            address=None,
            version="1",
            rungs=(ExecutionMode.PROCESS,),
            runtimes=("python",),
            cores=2,
            memory=2**34,
            memory_free=2**34,
            load=0.0,
            lanes=(NodeLane(name="lane-0", state=state, capacity=capacity, instances=held),),
            started=0.0,
            warm={"f@1": (held, 0)} if held else {},
            calls={"f@1": calls} if calls else {},
            forwarded={"f@1": forwarded} if forwarded else {},
            divided=max(self.view.divided.values(), default=0) if seen else 0,
        )
        await self.view.catch_up(await self.registry.put_node(described, await self.registry.join(600)))

    async def look(self) -> dict[str, int] | None:
        """Lets the leader look, and returns how the instances are divided."""
        self.now += 1.0
        await self.dividing.look(self.now)
        division = self.view.divisions.get(("f", 1))
        return None if division is None else division.shares


@asynccontextmanager
async def cluster(**config: Any) -> AsyncIterator[Cluster]:
    """Begins with a function that nobody has used, and two nodes."""
    made = Cluster()
    await made.view.start()
    await made.deploy(**config)
    await made.say("a")
    await made.say("b")
    yield made
    await made.view.close()


async def test_what_is_not_in_use_is_not_written_down() -> None:
    async with cluster() as nodes:
        assert await nodes.look() is None
        await nodes.say("a", held=1)
        assert await nodes.look() == {"a": 5, "b": 5}
        before = await nodes.store.revision()
        await nodes.look()
        assert await nodes.store.revision() == before, "it was written again"


async def test_a_share_moves_when_who_had_it_has_seen_so_and_holds_no_more() -> None:
    async with cluster() as nodes:
        await nodes.say("a", held=5, calls=9)
        await nodes.say("b", held=2)
        assert await nodes.look() == {"a": 5, "b": 1}
        await nodes.say("a", held=5, calls=9)
        await nodes.say("b", held=1, seen=False)
        assert await nodes.look() == {"a": 5, "b": 1}
        await nodes.say("b", held=2)
        assert await nodes.look() == {"a": 8, "b": 1}
        await nodes.say("a", held=5, calls=9)
        await nodes.say("b", held=1)
        assert await nodes.look() == {"a": 9, "b": 1}


async def test_a_node_none_of_whose_lanes_answers_is_not_waited_for() -> None:
    async with cluster() as nodes:
        await nodes.say("a", held=5, calls=9)
        assert await nodes.look() == {"a": 5, "b": 1}
        await nodes.say("a", held=5, calls=9)
        await nodes.say("b", seen=False, state="away", capacity=0)
        assert await nodes.look() == {"a": 9, "b": 1}
        await nodes.say("a", held=5, calls=9)
        nodes.now += STARTING
        assert await nodes.look() == {"a": 9}


async def test_a_node_whose_lanes_start_anew_keeps_its_share() -> None:
    async with cluster() as nodes:
        await nodes.say("a", held=1)
        assert await nodes.look() == {"a": 5, "b": 5}
        await nodes.say("a", held=1)  # it goes by that: what is given up could be divided at once
        for _ in range(3):
            await nodes.say("b", state="away", capacity=0)
            for _ in range(int(STARTING)):
                assert await nodes.look() == {"a": 5, "b": 5}
            await nodes.say("b")
            assert await nodes.look() == {"a": 5, "b": 5}
        await nodes.say("b", state="away", capacity=0)
        await nodes.look()
        nodes.now += STARTING
        assert await nodes.look() == {"a": 5}, "it was waited for longer"


async def test_calls_count_by_how_many_an_instance_takes() -> None:
    async with cluster(concurrency=10) as nodes:
        await nodes.say("a", held=1, calls=61.5)
        assert await nodes.look() == {"a": 5, "b": 3}


async def test_the_division_of_a_revision_that_is_gone_goes_too() -> None:
    async with cluster() as nodes:
        await nodes.say("a", held=1)
        await nodes.look()
        await nodes.view.catch_up(await nodes.registry.delete_revision("f", 1))
        assert await nodes.look() is None
        await nodes.deploy(created=2.0, max_instances=2)
        assert await nodes.look() == {"a": 1, "b": 1}


async def test_a_leader_begins_with_what_the_one_before_has_written() -> None:
    async with cluster() as nodes:
        late = Cluster()
        late.store, late.view = nodes.store, RegistryView(nodes.store)
        await late.view._read_all()  # it does not follow the store
        late.dividing = Dividing(FencedStore(nodes.store, lambda: None), late.view, Pace())
        await nodes.say("a", held=5, calls=9)
        assert await nodes.look() == {"a": 5, "b": 1}
        await late.dividing.catch_up()
        assert await late.look() == {"a": 5, "b": 1}


async def test_instances_are_wanted_for_the_calls_of_all_nodes_and_no_more_when_there_are_none() -> None:
    async with cluster(max_instances=20) as nodes:
        for _ in range(10):
            await nodes.say("a", held=4, calls=4)
            await nodes.say("b", held=2, calls=3)
            await nodes.look()
        division = nodes.view.divisions["f", 1]
        assert division.wanted == {"a": 6, "b": 4}
        assert "about 7.0 calls at once in 60 s" in division.why
        for _ in range(100):
            await nodes.say("a", held=4)
            await nodes.say("b", held=2)
            await nodes.look()
        assert nodes.view.divisions["f", 1].wanted == {}


async def test_what_is_wanted_is_not_written_again_while_it_is_the_same() -> None:
    async with cluster() as nodes:
        revisions = set()
        for _ in range(12):
            await nodes.say("a", held=1, calls=0.6)
            await nodes.say("b")
            await nodes.look()
            revisions.add(nodes.view.divided["f", 1])
        assert len(revisions) == 1


async def test_who_has_what_it_wants_and_says_nothing_else_is_looked_at_whole_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def counted(*arguments: Any) -> dict[str, int]:
        looks.append(arguments)
        return redivided(*arguments)

    monkeypatch.setattr(dividing, "redivided", counted)
    async with cluster() as nodes:

        async def settled() -> int:
            for _ in range(10):
                await nodes.say("a", held=1, calls=0.9)
                await nodes.say("b")
                await nodes.look()
            return len(looks)

        before = await settled()
        assert await settled() == before, "nothing was said that matters"
        await nodes.say("b", held=1, calls=0.9)
        await nodes.look()
        assert len(looks) == before + 1
        await settled()
        nodes.now += dividing.AGAIN
        before = len(looks)
        await nodes.look()
        assert len(looks) == before + 1


async def test_who_has_less_than_it_wants_is_looked_at_each_time() -> None:
    async with cluster() as nodes:
        for _ in range(10):  # it may have more than it has room for
            await nodes.say("a", held=2, calls=9, capacity=2)
            await nodes.say("b", held=1)
            await nodes.look()
        assert (await nodes.look() or {})["a"] == 2
        for _ in range(3):
            await nodes.say("a", held=2, calls=9)
            await nodes.say("b", held=1)
            shares = await nodes.look()
        assert shares == {"a": 9, "b": 1}


class Gateways:
    """Two machines that take requests and run them on instances of their own, or else of the other."""

    def __init__(self, nodes: Cluster, most: int) -> None:
        self.nodes, self.most = nodes, most
        self.held = {"a": 0, "b": 0}
        self.shares: list[dict[str, int]] = []

    async def ask(self, rounds: int, a: float, b: float, noise: float = 0.0) -> None:
        """Lets so many calls at once come to each for some rounds."""
        chance = random.Random(1)
        for _ in range(rounds):
            calls = {"a": 0.0, "b": 0.0}
            forwarded: dict[str, dict[str, float]] = {"a": {}, "b": {}}
            for name, other, coming in (("a", "b", a), ("b", "a", b)):
                coming = round(coming * (1 + chance.uniform(-noise, noise)), 1)
                if self.held[name] or not self.held[other]:
                    calls[name] += coming
                else:
                    calls[other] += coming
                    forwarded[other][name] = coming
            for name in ("a", "b"):
                await self.nodes.say(name, self.held[name], calls[name], forwarded=forwarded[name])
            shares = await self.nodes.look() or {}
            ready = self.nodes.view.divisions["f", 1].wanted if shares else {}
            self.shares.append(shares)
            before = self.held
            self.held = {}
            for name, own in calls.items():
                wanted = max(ceil(own), ready.get(name, 0), before[name])
                self.held[name] = min(shares.get(name, 0) if shares else 1, wanted)
            assert 1 <= sum(self.held.values()) <= self.most


@pytest.mark.parametrize("most", [2, 3, 4, 10, 50])
async def test_shares_come_back_to_where_the_calls_come_back_to(most: int) -> None:
    async with cluster(max_instances=most) as nodes:
        gateways = Gateways(nodes, most)
        await gateways.ask(20, a=0, b=4 * most)
        assert gateways.held == {"a": 0, "b": most}
        await gateways.ask(20, a=4 * most, b=0)
        assert gateways.held == {"a": most, "b": 0}
        assert gateways.shares[-1] == {"a": most}


async def test_an_only_instance_stays_where_it_is_since_without_it_nobody_would_have_one() -> None:
    async with cluster(max_instances=1) as nodes:
        gateways = Gateways(nodes, 1)
        await gateways.ask(5, a=0, b=4)
        written = nodes.view.divided["f", 1]
        await gateways.ask(40, a=4, b=0)
        assert gateways.shares[-1] == {"b": 1}
        assert nodes.view.divided["f", 1] == written


@pytest.mark.parametrize(
    ("most", "asked"),
    [(2, 4), (3, 6), (4, 8), (10, 20), (3, 1), (5, 2), (5, 2.5), (10, 5), (10, 0.5), (40, 10)],
)
async def test_shares_come_to_rest_where_both_are_asked_alike(most: int, asked: float) -> None:
    async with cluster(max_instances=most) as nodes:
        gateways = Gateways(nodes, most)
        await gateways.ask(20, a=0, b=4 * most)
        await gateways.ask(30, a=asked, b=asked, noise=0.2)
        settled = gateways.shares[-1]
        assert min(settled["a"], settled["b"]) >= min(most // 2, asked)
        await gateways.ask(200, a=asked, b=asked, noise=0.2)
        assert all(shares == settled for shares in gateways.shares[-200:])


async def test_a_machine_that_could_not_run_its_calls_itself_is_given_nothing_for_them() -> None:
    async with cluster(max_instances=4) as nodes:
        await nodes.say("a", capacity=0)
        for _ in range(5):
            await nodes.say("b", held=4, calls=9, forwarded={"a": 9.0})
            shares = await nodes.look()
        assert shares == {"b": 4}


async def test_instances_are_ready_where_the_calls_come_to_though_they_run_elsewhere_yet() -> None:
    async with cluster(max_instances=20) as nodes:
        for _ in range(10):
            await nodes.say("a")
            await nodes.say("b", held=4, calls=2)
            await nodes.look()
        assert nodes.view.divisions["f", 1].wanted == {"b": 3}
        for _ in range(10):
            await nodes.say("b", held=4, calls=2, forwarded={"a": 1.8})
            await nodes.look()
        assert nodes.view.divisions["f", 1].wanted.keys() == {"a"}
