"""Runs what waits in the queues of functions, as if a client had just asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from martlet.gateway.attempt import Attempt, Attempts, Outcome
from martlet.storage.invocations import Invocations
from martlet.storage.queue import Delivery, DeliveryLost, Queue, QueueError
from martlet.storage.registry import RegistryView
from martlet.telemetry.stats import LaneStats

log = structlog.get_logger()

VISIBILITY = 10.0
"""Seconds after which what a dead lane has held is run by another."""
HEARTBEAT = 3.0
POLL = 1.0
"""Seconds between two looks for what other lanes have accepted, or left."""
PER_FUNCTION = 32
AT_ONCE = 256
"""How many a lane runs at once: of one function, and of all."""
SETTLING = 60.0
"""Seconds for which it is tried to write down how an attempt has ended: without, it is made again."""
FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds for which a function that has no room is left alone; doubled each time."""


@dataclass(slots=True)
class _Line:
    """What is known of the queue of one function here."""

    function: str
    queue: Queue
    running: int = 0
    looking: bool = False
    woken: bool = False
    pause: float = 0.0
    paused_until: float = 0.0


class Worker:
    """See the module.

    Args:
        invocations: the queues.
        view: where functions are looked up.
        attempts: runs one.
        stats: counts how attempts end.
        leaves: whether others are to run what waits.
        visibility: seconds for which others leave alone what is held here; it is renewed while it runs.
        heartbeat: seconds between two renewals.
        poll: seconds between two looks into all queues.
    """

    def __init__(
        self,
        invocations: Invocations,
        view: RegistryView,
        attempts: Attempts,
        stats: LaneStats,
        leaves: Callable[[], bool] = lambda: False,
        visibility: float = VISIBILITY,
        heartbeat: float = HEARTBEAT,
        poll: float = POLL,
    ) -> None:
        self._invocations = invocations
        self._view = view
        self._attempts = attempts
        self._stats = stats
        self._leaves = leaves
        self._visibility = visibility
        self._heartbeat = heartbeat
        self._poll = poll
        self._lines: dict[str, _Line] = {}
        self._running = 0
        self._runs: set[asyncio.Task[None]] = set()
        self._looks: set[asyncio.Task[None]] = set()
        self._closing = False

    def open(self) -> None:
        """Begins."""
        self._start(self._watch(), self._looks)

    async def close(self, grace: float) -> None:
        """Takes no more; what still runs after ``grace`` seconds is cut off and left to others."""
        self._closing = True
        for task in tuple(self._looks):
            task.cancel()
        await asyncio.gather(*self._looks, return_exceptions=True)
        if self._runs:
            await asyncio.wait(self._runs, timeout=grace)
        for task in tuple(self._runs):
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    def wake(self, function: str) -> None:
        """Something may wait for the function."""
        line = self._lines.get(function)
        if line is None:
            line = self._lines[function] = _Line(function, self._invocations.queue(function))
        line.woken = True
        if not line.looking and not self._closing:
            line.looking = True
            self._start(self._look(line), self._looks)

    async def _watch(self) -> None:
        """Looks into all queues again and again: for what other lanes have accepted, or left, or is due now."""
        reached = True
        while True:
            try:
                for function in await self._invocations.functions():
                    self.wake(function)
                reached = True
            except QueueError as error:
                if reached:
                    log.warning("queues_out_of_reach", error=str(error))
                reached = False
            await asyncio.sleep(self._poll)

    async def _look(self, line: _Line) -> None:
        """Takes what waits for a function, as much as may run at once."""
        try:
            while True:
                line.woken = False
                await asyncio.sleep(max(0.0, line.paused_until - monotonic()))
                free = min(self._share(line.function) - line.running, AT_ONCE - self._running)
                if free <= 0 or self._leaves():
                    return  # whatever ends wakes it, or the next look
                deliveries = await line.queue.take(free, self._visibility)
                for delivery in deliveries:
                    line.running += 1
                    self._running += 1
                    self._start(self._run(line, delivery), self._runs)
                if len(deliveries) < free and not line.woken:
                    return
        except QueueError as error:
            log.warning("queue_out_of_reach", function=line.function, error=str(error))
        finally:
            line.looking = False
            if not line.running and not line.pause:
                self._lines.pop(line.function, None)

    def _share(self, function: str) -> int:
        """Returns how many of a function run here at once: no more than find room."""
        known = self._view.functions.get(function)
        revision = None if known is None else self._view.revisions.get((function, known.latest))
        if revision is None:
            return 1
        return min(PER_FUNCTION, revision.config.max_instances * revision.config.concurrency)

    async def _run(self, line: _Line, delivery: Delivery) -> None:
        holding = asyncio.create_task(self._hold(line.queue, delivery))
        try:
            attempt = await self._attempts.make(delivery)
            self._stats.function(line.function).attempt(attempt.outcome.value)
            await self._settle_at_last(line, delivery, attempt)
        except asyncio.CancelledError:
            with suppress(QueueError):  # then it comes again a little later
                await line.queue.nack(delivery, tried=False)
            raise
        except DeliveryLost:
            log.warning("invocation_run_twice", function=line.function, id=delivery.id)
        except QueueError as error:
            log.warning("invocation_not_settled", function=line.function, id=delivery.id, error=str(error))
        finally:
            holding.cancel()
            line.running -= 1
            self._running -= 1
            self.wake(line.function)

    async def _hold(self, queue: Queue, delivery: Delivery) -> None:
        """Keeps a message while it runs."""
        while True:
            await asyncio.sleep(self._heartbeat)
            try:
                await queue.extend(delivery, self._visibility)
            except DeliveryLost:
                return  # which is said when it ends
            except QueueError as error:
                log.warning("invocation_not_held", id=delivery.id, error=str(error))

    async def _settle_at_last(self, line: _Line, delivery: Delivery, attempt: Attempt) -> None:
        """Settles, again and again while the queues are out of reach. Raises `QueueError`."""
        end = monotonic() + SETTLING
        while True:
            try:
                return await self._settle(line, delivery, attempt)
            except DeliveryLost:
                raise
            except QueueError:
                if monotonic() > end:
                    raise
            await asyncio.sleep(self._poll)

    async def _settle(self, line: _Line, delivery: Delivery, attempt: Attempt) -> None:
        """Writes down how an attempt has ended, and only then lets go of the message."""
        if attempt.outcome is Outcome.POSTPONED:
            line.pause = min(max(FIRST_PAUSE, 2 * line.pause), LAST_PAUSE)
            line.paused_until = monotonic() + line.pause
            await line.queue.nack(delivery, line.pause, tried=False)
            return
        line.pause = 0.0
        await self._invocations.note(attempt.invocation)
        if attempt.outcome is Outcome.SUCCEEDED or attempt.outcome is Outcome.GONE:
            await line.queue.ack(delivery)
        else:
            await line.queue.nack(delivery, attempt.retry_in)

    def _start(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
