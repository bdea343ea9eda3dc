"""A live sandbox that serves one revision."""

from __future__ import annotations

import asyncio
from time import monotonic, time
from typing import TYPE_CHECKING

from martlet.drivers.driver import Handle, Loaded
from martlet.errors import FunctionCrashed, FunctionOutOfMemory, FunctionTimeout, MartletError
from martlet.http.conversation import Conversation
from martlet.http.fetch import MAX_ANSWER_OF_INSTANCE, FetchError, fetch
from martlet.http.unix import connected
from martlet.model import ExecutionMode, InstanceState, InstanceView, ScalingAction
from martlet.node.burst import Burst
from martlet.node.call import Call
from martlet.node.slot import Slot

if TYPE_CHECKING:
    from martlet.node.pool import Pool

EXIT_WAIT = 5.0
"""Seconds to wait for the exit code of an instance that has closed a connection: a busy machine buries slowly."""
FAULT_WAIT = 0.5
"""Seconds to wait for that of one whose connection was cut for what it sent: it may well live."""


class Instance:
    """See the module. Its slots are its connections; it is idle when none carries a call.

    Attributes:
        opening: slots that are being connected.
        ready_at: `monotonic` when its first slot was there.
        start_seconds: what its start took.
        leaving: it takes no more calls, and ends when it has run those that it has.
        lost_to: why it was ended by us, for the calls that this cut short.
    """

    def __init__(
        self,
        pool: Pool,
        handle: Handle,
        loaded: Loaded,
        start_seconds: float,
        conversation: Conversation | None = None,
    ) -> None:
        self.pool = pool
        self.handle = handle
        self.loaded = loaded
        self.start_seconds = start_seconds
        self.ready_at = self.last_used = monotonic()
        self.created = time()
        self.requests = 0
        self.slots: set[Slot] = set()
        self.opening = 0
        self.dead = False
        self.leaving = False
        self.lost_to: MartletError | None = None
        self._cut_short: list[str] = []
        self.exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        driver = pool.node.weighing(handle)
        self._conversation = conversation
        self._burst = None if driver is None else Burst(driver, handle)
        self._patience = max(pool.config.timeout, pool.node.settings.cold_start_timeout)

    @property
    def calls(self) -> list[Call]:
        """The calls that it runs."""
        return [slot.call for slot in self.slots if slot.call is not None]

    @property
    def request_id(self) -> str | None:
        """The request that runs, where it is exactly one."""
        calls = self.calls
        return calls[0].exchange.request_id if len(calls) == 1 else None

    @property
    def wants_slots(self) -> int:
        """How many more slots it may have."""
        return self.pool.config.concurrency - len(self.slots) - self.opening

    def idle_since(self) -> float | None:
        """When it was last used, if it does nothing now."""
        return None if self.opening or self.calls else self.last_used

    async def open_slot(self) -> None:
        """Connects another slot and gives it to the pool. The first is the connection over which the instance got its
        code, where that goes on."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.open:
            slot = Slot(self)
            conversation.hand_over(slot)
            self.slots.add(slot)
            self.pool.slot_free(slot)
            return
        self.opening += 1
        await self._connect()

    def open_slots(self, count: int) -> None:
        """Does so many times the same, unawaited. They count at once: who asks again meanwhile opens no others."""
        self.opening += count
        for _ in range(count):
            self.pool.node.spawn(self._connect())

    async def _connect(self) -> None:
        """Connects a slot that is counted as opening. An instance that cannot be connected to is ended; one that takes
        connections slowly, because it is busy with those that it has, may do so for as long as they may run."""
        try:
            async with asyncio.timeout(self._patience):
                connection = await connected(self.handle.socket)
            _, slot = await asyncio.get_running_loop().create_unix_connection(
                lambda: Slot(self), sock=connection
            )
        except OSError as error:
            self.opening -= 1
            self._die(FunctionCrashed(f"the instance does not take connections: {error or 'it is too busy'}"))
            return
        self.opening -= 1
        if self.dead:
            slot.close()
            return
        self.slots.add(slot)
        self.pool.slot_free(slot)

    def look(self, now: float) -> None:
        """One of its calls runs for long: sees whether it is to give way."""
        if self._burst is not None:
            self._burst.look(now)

    # -- what its slots report

    def began(self, call: Call) -> None:
        """A call is being sent."""
        self.requests += 1
        if self.ready_at > call.arrived:
            call.cold = True
            call.start = min(self.start_seconds, call.sent - call.arrived)
            call.load = min(self.loaded.load_ms / 1e3, call.start)

    def ended(self, slot: Slot, call: Call, status: int, code: str | None) -> None:
        """A call has been answered."""
        self.last_used = self.pool.finished(call, status, code)
        if self._burst is not None and self._burst.seen and not self.calls:
            self._burst.over()
        self.pool.backoff.answered()
        if self.dead:
            return
        if slot.closed:
            self.slots.discard(slot)
            self.open_slots(1)
        else:
            self.pool.slot_free(slot)

    def abandoned(self, slot: Slot, call: Call, status: int) -> None:
        """The client of a call left. The function may still run: its slot is back when the instance answers again."""
        self.slots.discard(slot)
        self.pool.finished(call, status, "client_closed")
        if not self.dead:
            self.opening += 1
            self.pool.node.spawn(self._reopen(slot.deadline, call.exchange.request_id))

    def lost(self, slot: Slot, call: Call | None, why: str, *, cut: bool) -> None:
        """A connection broke: the instance has died, or does not keep the contract; either way it is ended."""
        self.slots.discard(slot)
        if call is not None:
            self._cut_short.append(call.exchange.request_id)
        elif self.dead or self._cut_short:  # it is explained already
            return
        elif not self.calls:
            self._die(FunctionCrashed(why))
            return
        else:  # whose connections break as well, where it has died
            self.dead = True
            self.pool.leave(self)
        self.pool.node.spawn(self._explain(call, why, FAULT_WAIT if cut else EXIT_WAIT))

    # -- its end

    def _die(self, why: MartletError) -> None:
        """It has died of what it ran, and of no call."""
        if not self.dead:
            self.pool.see_death()
        self.end(why)

    def overdue(self, slot: Slot) -> None:
        """A call has run past its deadline: it is answered, and the instance killed."""
        call, slot.call, slot.exchange = slot.call, None, None
        self.slots.discard(slot)
        slot.close()
        if call is not None:
            error = FunctionTimeout(f"the function ran longer than its timeout of {call.target.timeout:g} s")
            self._conclude(error, call.exchange.request_id)
            call.fail(error)
            self.pool.finished(call, error.status, error.code)
        self.end(FunctionCrashed("the instance was ended because another request to it ran past the timeout"))

    def end(self, why: MartletError | None = None) -> None:
        """Leaves the pool at once and is destroyed; calls that it still runs are answered with ``why``."""
        if not self.dead:
            self.dead = True
            self.lost_to = why
            if why is not None and self.calls:
                self._conclude(why, self.request_id)
            self.pool.leave(self)
            if why is not None:
                self.pool.note(ScalingAction.END, why.detail)
            self.pool.node.spawn(self.pool.node.bury(self))

    @property
    def state(self) -> InstanceState:
        """What it is doing."""
        if self.pool.retiring or self.leaving or self.dead:
            return InstanceState.DRAINING
        return InstanceState.BUSY if self.calls else InstanceState.IDLE

    def view(self, memory_bytes: int | None) -> InstanceView:
        """Returns it as ``/instances`` shows it."""
        return InstanceView(
            id=self.handle.id,
            function=self.pool.revision.function,
            revision=self.pool.revision.number,
            node=self.pool.node.name,
            driver="fake" if self.handle.driver == "fake" else ExecutionMode(self.handle.driver),
            state=self.state,
            pid=self.handle.pid,
            created=self.created,
            last_used=time() - (monotonic() - self.last_used),
            requests=self.requests,
            memory_bytes=memory_bytes,
        )

    async def _explain(self, call: Call | None, why: str, patience: float) -> None:
        """Finds out why a connection broke, and answers the call that this cut short, if any.

        Waits for an exit code for ``patience`` seconds.
        """
        node = self.pool.node
        error = self.lost_to
        if error is None:
            if not self.dead:
                self.dead = True
                self.pool.leave(self)
            last_words = await self._last_words(why, patience)  # before which a guest's kernel says nothing
            stats = await node.driver_of(self.handle).stats(self.handle)
            if stats is not None and stats.oom_kills:
                limit = self.pool.config.memory // 1024**2
                error = FunctionOutOfMemory(f"the function used more than its {limit} MiB of memory")
            else:
                error = FunctionCrashed(last_words)
            self.pool.note(ScalingAction.END, error.detail)
            self.pool.see_death()
            self.lost_to = self.lost_to or FunctionCrashed("the instance died while it ran another request")
            node.spawn(node.bury(self))
        cut_short = [*self._cut_short, *(call.exchange.request_id for call in self.calls)]
        self._conclude(error, cut_short[0] if len(cut_short) == 1 else None)
        if call is not None:
            call.fail(error)
            self.pool.finished(call, error.status, error.code)

    def _conclude(self, error: MartletError, request_id: str | None) -> None:
        """Says in the function's log what it ends of. Whatever follows from that is not said there."""
        self.pool.node.conclude(self.handle, error, request_id)

    async def _last_words(self, why: str, patience: float) -> str:
        done, _ = await asyncio.wait([self.exit_code], timeout=patience)
        if not done:
            return f"the instance broke the contract: {why}"
        code = self.exit_code.result()
        return (
            f"the instance was ended by signal {-code}"
            if code < 0
            else f"the instance exited with code {code}"
        )

    async def _reopen(self, deadline: float, request_id: str) -> None:
        """Connects a slot that is counted as opening, once the function answers again."""
        try:
            await fetch(
                self.handle.socket,
                "GET",
                "/_martlet/health",
                timeout=max(0.1, deadline - monotonic()),
                at_most=MAX_ANSWER_OF_INSTANCE,
            )
        except FetchError:
            self.opening -= 1
            error = FunctionTimeout("the function ran on past its timeout after its client had left")
            if not self.dead and monotonic() >= deadline:  # else it has died, and nobody waited for it
                self._conclude(error, request_id)
            self.end(error)
            return
        if self._burst is not None:
            self._burst.over()
        await self._connect()
