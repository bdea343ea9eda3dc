"""How what waits in queues is run: held while it runs, settled when it ends, left to others when it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from martlet.gateway.attempt import Attempt, Attempts, Outcome
from martlet.gateway.worker import Worker
from martlet.model import Invocation, InvocationState
from martlet.storage.invocations import Invocations, Request
from martlet.storage.memory import MemoryStore
from martlet.storage.memory_broker import MemoryBroker
from martlet.storage.queue import Delivery, Depth, QueueError
from martlet.storage.registry import RegistryView
from martlet.telemetry.stats import LaneStats

pytestmark = pytest.mark.anyio

NAME = "hello"
REQUEST = Request(NAME, NAME, "POST", "/", b"", created=1.0, accepted=2.0, body=b"body")
STATES = {
    Outcome.SUCCEEDED: InvocationState.SUCCEEDED,
    Outcome.DEAD: InvocationState.FAILED,
    Outcome.GONE: InvocationState.FAILED,
}
VISIBILITY = 2.0
"""Seconds; a worker that a busy machine keeps waiting for as long would lose what it holds."""


class Made:
    """Attempts that end as a test says, one after the other; the last way stays."""

    def __init__(self) -> None:
        self.outcomes = [Outcome.SUCCEEDED]
        self.deliveries: list[Delivery] = []
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def make(self, delivery: Delivery) -> Attempt:
        self.deliveries.append(delivery)
        await self.may_end.wait()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        state = STATES.get(outcome, InvocationState.WAITING)
        invocation = Invocation(
            id=delivery.id, function=NAME, target=NAME, state=state, accepted=2.0, attempts=delivery.attempt
        )
        return Attempt(outcome, invocation, 0.01)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(max_deliveries=3)


@pytest.fixture
def invocations(broker: MemoryBroker) -> Invocations:
    return Invocations(broker, most=1000, kept=600)


@pytest.fixture
def stats() -> LaneStats:
    return LaneStats()


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
async def worker(invocations: Invocations, stats: LaneStats, made: Made) -> AsyncIterator[Worker]:
    worker = new_worker(invocations, stats, made)
    worker.open()
    yield worker
    made.may_end.set()
    await worker.close(5)


def new_worker(
    invocations: Invocations, stats: LaneStats, made: Made, leaves: Callable[[], bool] = lambda: False
) -> Worker:
    view, attempts = RegistryView(MemoryStore()), cast(Attempts, made)
    return Worker(
        invocations, view, attempts, stats, leaves, visibility=VISIBILITY, heartbeat=0.02, poll=0.02
    )


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def state(invocations: Invocations, invocation: Invocation, wanted: InvocationState) -> None:
    """Waits for an invocation to be so."""
    async with asyncio.timeout(60):
        while (await find(invocations, invocation)).state is not wanted:
            await asyncio.sleep(0.005)


async def find(invocations: Invocations, invocation: Invocation) -> Invocation:
    found = await invocations.find(invocation.id)
    assert found is not None
    return found


async def test_what_is_accepted_is_run_and_its_outcome_kept(
    worker: Worker, invocations: Invocations, made: Made, stats: LaneStats
) -> None:
    accepted = await invocations.accept(REQUEST)
    assert accepted.state is InvocationState.WAITING
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    await until(lambda: made.deliveries)
    assert Request.decode(made.deliveries[0].message) == REQUEST
    assert made.deliveries[0].id == accepted.id
    async with asyncio.timeout(60):
        while await invocations.queue(NAME).depth() != Depth():
            await asyncio.sleep(0.005)
    assert orjson.loads(orjson.dumps(stats.to_json()))["functions"][NAME]["attempts"] == {"succeeded": 1}


async def test_what_fails_is_tried_again_until_it_is_a_dead_letter_and_may_be_retried(
    worker: Worker, invocations: Invocations, made: Made, stats: LaneStats
) -> None:
    made.outcomes = [Outcome.FAILED, Outcome.FAILED, Outcome.DEAD, Outcome.SUCCEEDED]
    accepted = await invocations.accept(REQUEST)
    await state(invocations, accepted, InvocationState.FAILED)
    async with asyncio.timeout(60):
        while not (dead := await invocations.dead(NAME, 10)):
            await asyncio.sleep(0.005)
    assert [(each.id, each.attempts, each.bytes) for each in dead] == [(accepted.id, 3, 4)]
    assert [each.attempt for each in made.deliveries] == [1, 2, 3]
    assert stats.function(NAME).attempts == {"failed": 2, "dead": 1}
    assert not await invocations.retry(NAME, "another")
    assert await invocations.retry(NAME, accepted.id)
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    assert made.deliveries[-1].attempt == 1


async def test_what_has_run_is_not_run_again_because_the_queues_were_away_when_it_ended(
    worker: Worker, invocations: Invocations, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.may_end.clear()
    accepted = await invocations.accept(REQUEST)
    await until(lambda: made.deliveries)
    note, away = invocations.note, 10

    async def unreachable(invocation: Invocation) -> None:
        nonlocal away
        if away:
            away -= 1
            raise QueueError("away")
        await note(invocation)

    monkeypatch.setattr(invocations, "note", unreachable)
    made.may_end.set()
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    async with asyncio.timeout(60):
        while await invocations.queue(NAME).depth() != Depth():
            await asyncio.sleep(0.005)
    assert (away, len(made.deliveries)) == (0, 1)


async def test_waiting_for_room_is_no_attempt(worker: Worker, invocations: Invocations, made: Made) -> None:
    made.outcomes = [*[Outcome.POSTPONED] * 4, Outcome.SUCCEEDED]
    accepted = await invocations.accept(REQUEST)
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    assert [each.attempt for each in made.deliveries] == [1] * 5


async def test_what_runs_longer_than_it_is_held_is_held_on(
    worker: Worker, invocations: Invocations, made: Made, stats: LaneStats
) -> None:
    other = new_worker(invocations, stats, made)
    other.open()
    made.may_end.clear()
    accepted = await invocations.accept(REQUEST)
    await until(lambda: made.deliveries)
    await asyncio.sleep(VISIBILITY * 1.2)
    made.may_end.set()
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    await other.close(5)
    assert len(made.deliveries) == 1


async def test_what_a_dead_worker_held_is_run_by_another(
    invocations: Invocations, stats: LaneStats, made: Made
) -> None:
    accepted = await invocations.accept(REQUEST)
    (held,) = await invocations.queue(NAME).take(1, 0.1)  # and nobody ever hears of it again
    worker = new_worker(invocations, stats, made)
    worker.open()
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    await worker.close(5)
    assert [each.attempt for each in made.deliveries] == [2]
    assert held.id == accepted.id


async def test_a_worker_that_stops_leaves_what_it_cannot_finish_untried(
    invocations: Invocations, stats: LaneStats, made: Made
) -> None:
    worker = new_worker(invocations, stats, made)
    worker.open()
    made.may_end.clear()
    await invocations.accept(REQUEST)
    await until(lambda: made.deliveries)
    await worker.close(0.01)
    (delivery,) = await invocations.queue(NAME).take(1, 600)
    assert delivery.attempt == 1


async def test_each_dead_letter_is_said_to_have_failed_also_where_nobody_lived_to_say_so(
    invocations: Invocations,
) -> None:
    accepted = await invocations.accept(REQUEST)
    for _ in range(3):
        (delivery,) = await invocations.queue(NAME).take(1, 600)
        await invocations.queue(NAME).nack(delivery)
    assert (await find(invocations, accepted)).state is InvocationState.FAILED


async def test_a_request_under_the_same_name_is_the_same_invocation(invocations: Invocations) -> None:
    first = await invocations.accept(REQUEST, "key:once")
    await invocations.note(first.model_copy(update={"state": InvocationState.SUCCEEDED}))
    again = await invocations.accept(replace(REQUEST, body=b"other"), "key:once")
    assert (again.id, again.state) == (first.id, InvocationState.SUCCEEDED)


async def test_a_worker_that_leaves_it_to_others_takes_nothing_until_it_does_so_no_more(
    invocations: Invocations, stats: LaneStats, made: Made
) -> None:
    leaving, asked = True, 0

    def leaves() -> bool:
        nonlocal asked
        asked += 1
        return leaving

    worker = new_worker(invocations, stats, made, leaves)
    worker.open()
    accepted = await invocations.accept(REQUEST)
    await until(lambda: asked > 3)
    assert made.deliveries == []
    leaving = False
    await state(invocations, accepted, InvocationState.SUCCEEDED)
    await worker.close(5)
