"""The instances of one revision on this lane, and the calls that wait for them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from martlet.drivers.driver import LoadFailed
from martlet.errors import FunctionLoadFailed, MartletError, Overloaded
from martlet.model import FunctionConfig, Revision, ScalingAction
from martlet.node.average import LEARNING, CallsAtOnce
from martlet.node.call import CLIENT_CLOSED, Call
from martlet.node.forwards import Forwards
from martlet.node.instance import Instance
from martlet.node.remarks import Remarks
from martlet.node.slot import Slot
from martlet.node.template import Template
from martlet.scheduling.autoscale import Load, instances_to_start
from martlet.scheduling.backoff import Backoff
from martlet.scheduling.placement import Placement

if TYPE_CHECKING:
    from martlet.node.node import Node

log = structlog.get_logger()

STAYED = {
    Placement.FORWARD: "the home lane of the revision has one that is free",
    Placement.FULL: "there are max_instances already",
}
"""Why the home lane grants no instance."""

FIRST = "a request waited, and there was no instance"

FORGOTTEN = 0.05
"""Calls at once below which a machine is taken to send none."""


class Pool:
    """See the module. The last slot that became idle is the next to be used, so that instances beyond need stay idle
    and run out.

    Attributes:
        idle: free slots.
        waiting: calls that no slot was free for, in their order.
        asking: how many of `starting` the home lane has not granted yet.
        retiring: no new calls come; it ends when the last is answered.
        run_time: moving average of what a call takes, seconds.
        start_time: moving average of what a start takes, seconds.
        calls: how many ran at once lately.
        sent_by: how many did of those that each machine has sent here.
        template: what further instances are forked from.
        habit: how the function is used here.
        remarks: what the function's log says of starts that failed.
        backoff: when the next instance may start, where they die.
        used: when it was last seen in use, as far as that is known: `monotonic`.
        refer: where calls go that this lane may not have an instance for.
        forwards: what this lane has sent to the home lane, which was not asked first.
        forward_until: how long the home lane's word that it takes the calls holds: `monotonic`.
    """

    def __init__(self, node: Node, revision: Revision, refer: Callable[[Call], None]) -> None:
        self.node = node
        self.revision = revision
        self.config: FunctionConfig = revision.config
        self.refer = refer
        self.instances: set[Instance] = set()
        self.template = Template(self)
        self.forwards = Forwards()
        self.forward_until = 0.0
        self.idle: list[Slot] = []
        self.waiting: deque[Call] = deque()
        self._starting = self.asking = 0
        self.retiring = False
        self.run_time = 0.0
        self.start_time = 0.005
        self.calls = CallsAtOnce()
        self.sent_by: dict[str, CallsAtOnce] = {}
        self._looked = monotonic()
        self.created = monotonic()
        self.remarks = Remarks(revision, node.logs)
        self.backoff = Backoff()
        self.record = node.recorder.of(revision)
        self.habit = node.habits.of(revision.function)
        self.used = self.habit.used

    @property
    def starting(self) -> int:
        """Instances on their way, and those that the home lane is asked for. They take room of the lane."""
        return self._starting

    @starting.setter
    def starting(self, count: int) -> None:
        self.node.room.taken += count - self._starting
        self._starting = count

    @property
    def held(self) -> int:
        """Instances that count against ``max_instances``."""
        return len(self.instances) + self.starting

    @property
    def free(self) -> int:
        """Requests that its instances would take now, besides those they run."""
        return sum(self.config.concurrency - len(i.calls) for i in self.instances if not i.leaving)

    @property
    def demand(self) -> float:
        """Calls that run at once, now or lately, and those that wait now."""
        running = sum(len(instance.calls) for instance in self.instances)
        return round(max(self.calls.value, running) + len(self.waiting), 1)

    @property
    def forwarded(self) -> dict[str, float]:
        """What of `demand` other machines have sent here that run functions, too, by their ids."""
        if not self.sent_by:
            return {}
        running = Counter(call.sender for instance in self.instances for call in instance.calls)
        waiting = Counter(call.sender for call in self.waiting)
        told = {
            sender: round(max(calls.value, running[sender]) + waiting[sender], 1)
            for sender, calls in self.sent_by.items()
        }
        return {sender: calls for sender, calls in told.items() if calls}

    # -- calls

    def submit(self, call: Call) -> None:
        """Runs the call on a free slot, or lets it wait for one.

        Raises:
            Overloaded: as many wait as may.
        """
        if self.idle:
            self.idle.pop().run(call)
            return
        waiting = len(self.waiting)
        if waiting >= self.config.max_queue and (waiting or self.instances):
            raise Overloaded(f"{waiting} requests wait for the function already (max_queue)")
        self.waiting.append(call)
        if not waiting:  # else it looks after them already
            self.node.clock.press(self)
        if self.config.concurrency > 1 or not (self.instances or self.starting):
            self.grow()  # else the next tick of the node's clock sees whether it is worth it

    def slot_free(self, slot: Slot) -> None:
        """A slot can take a call."""
        if slot.instance.leaving:
            self._end_when_idle(slot.instance)
            return
        while self.waiting:
            call = self.waiting.popleft()
            if call.exchange.gone:
                self._record(call, CLIENT_CLOSED, 0.0, "client_closed")
                continue
            slot.run(call)
            return
        self.idle.append(slot)
        if self.retiring:
            self._retire_idle()

    def finished(self, call: Call, status: int, code: str | None) -> float:
        """A call that was sent is over. Returns when: `monotonic`."""
        now = monotonic()
        run = now - call.sent
        self.run_time += LEARNING * (run - self.run_time)
        self.calls.ended(run)
        if call.sender:
            self.sent_by.setdefault(call.sender, CallsAtOnce()).ended(run)
        self._record(call, status, run, code)
        return now

    def _record(self, call: Call, status: int, run: float, code: str | None) -> None:
        self.record(call, status, run, code)
        call.exchange.context = (
            None  # they hold each other; this way no garbage collector is needed to part them
        )

    # -- instances

    def grow(self) -> None:
        """Opens further slots and starts further instances, as far as the waiting calls need them."""
        if not self.waiting:
            return
        wanted = len(self.waiting)
        for instance in self.instances:
            if instance.leaving:
                continue
            wanted -= instance.opening
            slots = max(0, min(wanted, instance.wants_slots))
            instance.open_slots(slots)
            wanted -= slots
        if wanted <= 0:
            return
        load = self._load(wanted)
        if load.room <= 0 and not self.held:
            self._refer_all()
            return
        for _ in range(self.backoff.grant(instances_to_start(load), monotonic())):
            self.node.spawn(self._start(load, self.claim()))

    def _load(self, waiting: int) -> Load:
        oldest = min((call.sent for instance in self.instances for call in instance.calls), default=0.0)
        return Load(
            waiting=waiting,
            instances=len(self.instances),
            starting=self.starting,
            concurrency=self.config.concurrency,
            run_time=self.run_time,
            oldest_run=monotonic() - oldest if oldest else 0.0,
            start_time=self.start_time,
            room=self.node.portion.most(self.revision) - self.held,
            core_idle=self.node.core.idle() if self.instances else 1.0,
        )

    def claim(self) -> Awaitable[Placement]:
        """Counts one more as `starting`, and asks the home lane for it: if that grants none, it is counted no more."""
        self.starting += 1
        self.asking += 1
        return self._ask()

    async def _ask(self) -> Placement:
        placement = None
        try:
            placement = await self.node.allowance.ask(self.revision)
            return placement
        finally:
            self.asking -= 1
            if placement is not Placement.GRANT:
                self.starting -= 1

    async def _start(self, load: Load, claim: Awaitable[Placement]) -> None:
        """Starts one more instance if the home lane allows it."""
        placement = await claim
        if placement is Placement.GRANT:
            await self.start_granted(_why_started(load))
            return
        self.note(ScalingAction.STAY, STAYED[placement])
        if not self.held:
            self._refer_all()

    async def start_granted(self, why: str = FIRST) -> None:
        """Starts an instance that the home lane has granted; ``starting`` has been counted up already."""
        self.note(ScalingAction.START, why)
        try:
            await self.add_instance()
        except MartletError as error:
            self._start_failed(error)
        except Exception:
            # A fault of ours: who waits is told so, instead of waiting for one more try after another.
            log.exception("instance_not_started", revision=self.revision.id)
            self._start_failed(MartletError())

    async def add_instance(self) -> Instance:
        """Starts an instance; ``starting`` has been counted up already, and is counted down here.

        Raises:
            FunctionLoadFailed: the code does not load.
            NoCapacity: the lane may hold no more instances.
        """
        try:
            instance = await self.node.launch(self)
        except LoadFailed as error:
            self.starting -= 1
            self.node.allowance.changed()
            self.note(ScalingAction.FAIL, f"the code does not load: {error.kind or error}")
            self.see_death()
            raise FunctionLoadFailed(
                str(error), extra={"exception": error.kind, "traceback": error.traceback}
            ) from error
        except BaseException as error:
            self.starting -= 1
            self.node.allowance.changed()
            known = isinstance(error, MartletError)
            self.note(
                ScalingAction.FAIL, str(error) if known else "a fault of the platform: its log says more"
            )
            raise
        self.starting -= 1
        self.start_time += LEARNING * (instance.start_seconds - self.start_time)
        self.join(instance)
        await instance.open_slot()
        return instance

    def join(self, instance: Instance) -> None:
        """An instance is there to be used."""
        self.instances.add(instance)
        self.node.room.taken += 1

    def leave(self, instance: Instance) -> None:
        """An instance is no longer to be used."""
        if instance in self.instances:
            self.instances.remove(instance)
            self.node.room.taken -= 1
        self.idle = [slot for slot in self.idle if slot.instance is not instance]
        if instance.requests:
            self.see_use(instance.last_used)
        self.node.allowance.changed()
        if self.waiting:
            self.node.clock.press(self)

    def expire(self, now: float, ttl: float, keep: int, reason: str) -> int:
        """Ends instances that have been idle for ``ttl`` seconds, but keeps ``keep``; returns how many it ended."""
        surplus = len(self.instances) - keep
        if surplus <= 0:
            return 0
        idle = [
            (since, i) for i in self.instances if (since := i.idle_since()) is not None and now - since >= ttl
        ]
        going = [instance for _, instance in sorted(idle, key=lambda pair: pair[0])[:surplus]]
        for instance in going:
            instance.end()
        if going:
            self.note(ScalingAction.END, reason, len(going))
        return len(going)

    def shed(self, count: int, reason: str) -> None:
        """Ends so many instances, those that are idle first: others when they have run the calls that they have."""
        staying = [instance for instance in self.instances if not instance.leaving]
        staying.sort(key=lambda instance: (len(instance.calls), instance.last_used))
        going = staying[: max(0, count - len(self.instances) + len(staying))]
        for instance in going:
            instance.leaving = True
            self.idle = [slot for slot in self.idle if slot.instance is not instance]
            self._end_when_idle(instance)
        if going:
            self.note(ScalingAction.END, reason, len(going))

    def _end_when_idle(self, instance: Instance) -> None:
        if instance.idle_since() is not None:
            instance.end()

    def look(self, now: float) -> None:
        """Sees whether it is in use, or has been, and by how many calls; called now and then."""
        running, of_senders = 0.0, dict.fromkeys(self.sent_by, 0.0)
        for instance in self.instances:
            for call in instance.calls:
                running += now - call.sent
                if call.sender:
                    of_senders[call.sender] = of_senders.get(call.sender, 0.0) + now - call.sent
        since, self._looked = now - self._looked, now
        self.calls.look(running, since)
        for sender, ran in of_senders.items():
            calls = self.sent_by.setdefault(sender, CallsAtOnce())
            calls.look(ran, since)
            if not ran and calls.value < FORGOTTEN:
                del self.sent_by[sender]
        if self.waiting or any(instance.calls for instance in self.instances):
            self.see_use(now)
        else:
            for instance in self.instances:
                if instance.requests:
                    self.see_use(instance.last_used)

    def see_use(self, at: float) -> None:
        """It was in use then."""
        if self.used is None or at > self.used:
            self.used = at
            self.habit.seen(at)

    def see_death(self) -> None:
        """An instance has died of what it ran."""
        self.backoff.died(monotonic())
        if pause := self.backoff.pause:
            self.note(
                ScalingAction.STAY,
                f"instances die one after the other: {pause:g} s from one to the next start",
            )

    def note(self, action: ScalingAction, reason: str, instances: int = 1) -> None:
        """Remembers a decision, for whoever asks why."""
        self.habit.note(self.revision.number, action, reason, instances)

    def retire(self) -> None:
        """Takes no new calls; each instance ends when it is idle, the pool when the last has."""
        self.retiring = True
        self._retire_idle()

    def _retire_idle(self) -> None:
        if not self.waiting:
            going = [i for i in self.instances if i.idle_since() is not None]
            for instance in going:
                instance.end()
            if going:
                self.note(ScalingAction.END, "nothing points at the revision any more", len(going))

    def _start_failed(self, error: MartletError) -> None:
        """Tells who waits, where there is nothing else to wait for; what concerns nobody is left out of the log."""
        told = [] if self.held else self._fail_all(error)
        if told or isinstance(error, FunctionLoadFailed):
            self.remarks.start_failed(error, told)

    def _fail_all(self, error: MartletError) -> list[Call]:
        """Answers all who wait, but for those who wait elsewhere from now on. Returns them."""
        waiting, self.waiting = self.waiting, deque()
        failed = [call for call in waiting if not self.node.pass_on(call, error)]
        for call in failed:
            call.fail(error)
            self._record(call, error.status, 0.0, error.code)
        return failed

    def _refer_all(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        for call in waiting:
            if not call.exchange.gone:
                self.refer(call)


def _why_started(load: Load) -> str:
    if not load.instances:
        return FIRST
    # Rounded, so that the same reason looks the same.
    run, start = (
        f"{seconds * 1e3:.1g} ms" for seconds in (max(load.run_time, load.oldest_run), load.start_time)
    )
    return f"requests waited for a free one: each runs for about {run}, and a start takes {start}"
