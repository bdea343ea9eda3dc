"""The instances of one revision on this lane, and the calls that wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from martlet.drivers.driver import LoadFailed
from martlet.errors import FunctionLoadFailed, MartletError, Overloaded
from martlet.model import FunctionConfig, Revision
from martlet.node.call import CLIENT_CLOSED, Call
from martlet.node.instance import Instance
from martlet.node.slot import Slot
from martlet.node.template import Template
from martlet.scheduling.autoscale import Load, instances_to_start
from martlet.scheduling.placement import Placement

if TYPE_CHECKING:
    from martlet.node.node import Node

log = structlog.get_logger()

LEARNING = 0.2
"""Weight of the newest value in the moving averages of run and start times."""


class Pool:
    """See the module. The last slot that became idle is the next to be used, so that instances beyond need stay idle
    and run out.

    Attributes:
        idle: free slots.
        waiting: calls that no slot was free for, in their order.
        starting: instances on their way.
        retiring: no new calls come; it ends when the last is answered.
        run_time: moving average of what a call takes, seconds.
        start_time: moving average of what a start takes, seconds.
        template: what further instances are forked from.
        refer: where calls go that this lane may not have an instance for.
    """

    def __init__(self, node: Node, revision: Revision, refer: Callable[[Call], None]) -> None:
        self.node = node
        self.revision = revision
        self.config: FunctionConfig = revision.config
        self.refer = refer
        self.instances: set[Instance] = set()
        self.template = Template(self)
        self.idle: list[Slot] = []
        self.waiting: deque[Call] = deque()
        self.starting = 0
        self.retiring = False
        self.run_time = 0.0
        self.start_time = 0.005
        self.created = monotonic()
        self.record = node.recorder.of(revision)

    @property
    def held(self) -> int:
        """Instances that count against ``max_instances``."""
        return len(self.instances) + self.starting

    # -- calls

    def submit(self, call: Call) -> None:
        """Runs the call on a free slot, or lets it wait for one.

        Raises:
            Overloaded: as many wait as may.
        """
        if self.idle:
            self.idle.pop().run(call)
            return
        if len(self.waiting) >= max(self.config.max_queue, 1 if not self.instances else 0):
            raise Overloaded(f"{len(self.waiting)} requests wait for the function already (max_queue)")
        self.waiting.append(call)
        self.node.wake()
        self.node.pressed.add(self)
        if not self.held or self.config.concurrency > 1:
            self.grow()  # else the next tick of the node's clock sees whether it is worth it

    def slot_free(self, slot: Slot) -> None:
        """A slot can take a call."""
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
            wanted -= instance.opening
            for _ in range(min(wanted, instance.wants_slots)):
                self.node.spawn(instance.open_slot())
                wanted -= 1
        if wanted <= 0:
            return
        for _ in range(instances_to_start(self._load(wanted))):
            self.starting += 1
            self.node.spawn(self._start())

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
            room=self.config.max_instances - self.held,
            core_idle=self.node.core.idle() if self.instances else 1.0,
        )

    async def _start(self) -> None:
        """Starts one more instance if the home lane allows it. ``starting`` has been counted up already."""
        placement = await self.node.allowance.ask(self.revision)
        if placement is Placement.GRANT:
            await self.start_granted()
            return
        self.starting -= 1
        if not self.held:
            self._refer_all()

    async def start_granted(self) -> None:
        """Starts an instance that the home lane has granted; ``starting`` has been counted up already."""
        try:
            await self.add_instance()
        except MartletError as error:
            if not self.held:
                self._fail_all(error)
        except Exception:
            # A fault of ours: who waits is told so, instead of waiting for one more try after another.
            log.exception("instance_not_started", revision=self.revision.id)
            if not self.held:
                self._fail_all(MartletError())

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
            raise FunctionLoadFailed(
                str(error), extra={"exception": error.kind, "traceback": error.traceback}
            ) from error
        except BaseException:
            self.starting -= 1
            self.node.allowance.changed()
            raise
        self.starting -= 1
        self.start_time += LEARNING * (instance.start_seconds - self.start_time)
        self.instances.add(instance)
        await instance.open_slot()
        return instance

    def leave(self, instance: Instance) -> None:
        """An instance is no longer to be used."""
        self.instances.discard(instance)
        self.idle = [slot for slot in self.idle if slot.instance is not instance]
        self.node.allowance.changed()
        if self.waiting:
            self.node.pressed.add(self)
            self.node.wake()

    def expire(self, now: float, ttl: float, keep: int) -> None:
        """Ends instances that have been idle for ``ttl`` seconds, but keeps ``keep``."""
        surplus = len(self.instances) - keep
        if surplus <= 0:
            return
        idle = [
            (since, i) for i in self.instances if (since := i.idle_since()) is not None and now - since >= ttl
        ]
        for _, instance in sorted(idle, key=lambda pair: pair[0])[:surplus]:
            instance.end()

    def retire(self) -> None:
        """Takes no new calls; each instance ends when it is idle, the pool when the last has."""
        self.retiring = True
        self._retire_idle()

    def _retire_idle(self) -> None:
        if not self.waiting:
            for instance in [i for i in self.instances if i.idle_since() is not None]:
                instance.end()

    def _fail_all(self, error: MartletError) -> None:
        waiting, self.waiting = self.waiting, deque()
        for call in waiting:
            call.fail(error)
            self._record(call, error.status, 0.0, error.code)

    def _refer_all(self) -> None:
        waiting, self.waiting = self.waiting, deque()
        for call in waiting:
            if not call.exchange.gone:
                self.refer(call)
