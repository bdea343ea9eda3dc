"""Queues against a model: whatever several clients do in whatever order, each message is where it should be."""

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from martlet.storage.memory_queue import MemoryQueue
from martlet.storage.queue import Delivery, DeliveryLost, Depth, Queue
from martlet.storage.redis_queue import RedisQueue
from martlet.storage.sqlite_queue import SqliteQueue
from tests.redis_server import RedisServer

MOST = 2
LONG = 600.0
SOON = 0.001
READY, DELAYED, TAKEN, DEAD = "ready", "delayed", "taken", "dead"


class Model(RuleBasedStateMachine):
    """What is known of each message, and the deliveries that anybody has had.

    Time is in it as two lengths: what a rule waits for, and what never ends while this runs.
    """

    open_queue: Callable[[str, Path], Awaitable[Queue]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.state: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.contents: dict[str, bytes] = {}
        self.holders: dict[str, Delivery | None] = {}
        self.names: dict[str, str] = {}
        self.deliveries: list[Delivery] = []

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    @initialize()
    def connect(self) -> None:
        opening = type(self).open_queue
        name = secrets.token_hex(8)
        self.queue: Queue = self.run(opening(name, Path(self.folder.name)))

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.run(self.queue.close())
        self.loop.close()
        self.folder.cleanup()

    def deliver(self, delivery: Delivery) -> None:
        assert delivery.message == self.contents[delivery.id]
        self.attempts[delivery.id] += 1
        assert delivery.attempt == self.attempts[delivery.id]
        self.state[delivery.id] = TAKEN
        self.holders[delivery.id] = delivery
        self.deliveries.append(delivery)

    def give_back(self, message_id: str, state: str) -> None:
        self.state[message_id] = DEAD if self.attempts[message_id] >= MOST else state

    @rule(
        content=st.binary(max_size=4),
        delay=st.sampled_from([0.0, 0.0, LONG]),
        name=st.sampled_from([None, None, "one", "two"]),
    )
    def put(self, content: bytes, delay: float, name: str | None) -> None:
        message_id = self.run(self.queue.put(content, delay=delay, dedupe=name))
        if name in self.names:
            assert message_id == self.names[name]
            return
        assert message_id not in self.contents
        if name is not None:
            self.names[name] = message_id
        self.contents[message_id], self.attempts[message_id] = content, 0
        self.state[message_id] = DELAYED if delay else READY
        self.holders[message_id] = None

    @rule(n=st.integers(1, 3))
    def take(self, n: int) -> None:
        ready = {key for key, state in self.state.items() if state == READY}
        found = self.run(self.queue.take(n, LONG))
        assert len(found) == min(n, len(ready))
        for delivery in found:
            assert delivery.id in ready
            ready.remove(delivery.id)
            self.deliver(delivery)

    @precondition(lambda self: READY in self.state.values())
    @rule()
    def take_and_let_go(self) -> None:
        """One is taken, its visibility passes, and it comes to somebody else, or is dead."""
        (delivery,) = self.run(self.queue.take(1, SOON))
        assert self.state[delivery.id] == READY
        self.deliver(delivery)
        self.run(asyncio.sleep(4 * SOON))
        self.take_what_has_expired(delivery.id)

    @precondition(lambda self: TAKEN in self.state.values())
    @rule(data=st.data())
    def shorten(self, data: st.DataObject) -> None:
        held = [key for key in self.contents if self.state.get(key) == TAKEN]
        delivery = self.holders[data.draw(st.sampled_from(held))]
        assert delivery is not None
        self.run(self.queue.extend(delivery, SOON))
        self.run(asyncio.sleep(4 * SOON))
        self.take_what_has_expired(delivery.id)

    def take_what_has_expired(self, message_id: str) -> None:
        ready = [key for key, state in self.state.items() if state == READY]
        dies = self.attempts[message_id] >= MOST
        found = self.run(self.queue.take(len(ready) + 1, LONG))
        assert {each.id for each in found} == {*ready, *([] if dies else [message_id])}
        for delivery in found:
            self.deliver(delivery)
        if dies:
            self.state[message_id] = DEAD

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data(), what=st.sampled_from(["ack", "nack", "delay", "extend"]))
    def finish(self, data: st.DataObject, what: str) -> None:
        delivery = data.draw(st.sampled_from(self.deliveries))
        state = self.state.get(delivery.id)
        holds = state == TAKEN and self.holders[delivery.id] == delivery
        done = state in (None, DEAD) or (state != TAKEN and self.holders[delivery.id] == delivery)
        call = {
            "ack": self.queue.ack(delivery),
            "nack": self.queue.nack(delivery),
            "delay": self.queue.nack(delivery, LONG),
            "extend": self.queue.extend(delivery, LONG),
        }
        asked = call.pop(what)
        for other in call.values():
            other.close()
        if not holds and (what == "extend" or not done):
            with pytest.raises(DeliveryLost):
                self.run(asked)
            return
        self.run(asked)
        if holds and what == "ack":
            del self.state[delivery.id]
        elif holds and what != "extend":
            self.give_back(delivery.id, READY if what == "nack" else DELAYED)

    @precondition(lambda self: self.contents)
    @rule(data=st.data(), again=st.booleans())
    def decide(self, data: st.DataObject, again: bool) -> None:
        message_id = data.draw(st.sampled_from(list(self.contents)))
        is_dead = self.state.get(message_id) == DEAD
        assert self.run((self.queue.requeue if again else self.queue.drop)(message_id)) == is_dead
        if is_dead and again:
            self.state[message_id], self.attempts[message_id], self.holders[message_id] = READY, 0, None
        elif is_dead:
            del self.state[message_id]

    @invariant()
    def counts_are_right(self) -> None:
        if hasattr(self, "queue"):
            states = list(self.state.values())
            expected = Depth(*(states.count(state) for state in (READY, DELAYED, TAKEN, DEAD)))
            assert self.run(self.queue.depth()) == expected

    @invariant()
    def the_dead_are_listed(self) -> None:
        if hasattr(self, "queue"):
            listed = {each.id: each.message for each in self.run(self.queue.dead_letters())}
            dead = {key for key, state in self.state.items() if state == DEAD}
            assert listed == {key: self.contents[key] for key in dead}


async def _memory(name: str, folder: Path) -> Queue:
    return MemoryQueue(MOST)


async def _sqlite(name: str, folder: Path) -> Queue:
    return await SqliteQueue.open(folder / "queue.db", name, MOST)


def _test(opening: Callable[[str, Path], Awaitable[Queue]], examples: int) -> None:
    machine = type("Machine", (Model,), {"open_queue": staticmethod(opening)})
    test = machine.TestCase
    test.settings = settings(max_examples=examples, stateful_step_count=25)
    test().runTest()


def test_in_memory() -> None:
    _test(_memory, 25)


def test_in_sqlite() -> None:
    _test(_sqlite, 12)


def test_in_redis(redis_server: RedisServer) -> None:
    async def opening(name: str, folder: Path) -> Queue:
        return RedisQueue(redis_server.url, name, MOST)

    _test(opening, 12)
