"""Calls that no machine has room for, while one that may have instances of their function cannot be reached.

That one is being restarted, or has died and what it may have will soon be others': a lease at most. To refuse the calls
would be to lose them for want of seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from martlet.errors import MartletError
from martlet.gateway.fleet import Fleet
from martlet.node.call import Call
from martlet.telemetry.stats import LaneStats

PATIENCE = 20.0
"""Seconds after its arrival that a call waits at most: twice a lease."""
EVERY = 0.1
"""Seconds between two looks whether there is room."""
LAG = 2.0
"""Seconds that calls wait on once nobody is expected: who has inherited the share may hear of that a little later."""


class WaitingRoom:
    """See the module.

    Args:
        fleet: the machines.
        again: gets a call that may find room now, or that need not wait any longer.
        stats: counts who has had to wait.
    """

    def __init__(self, fleet: Fleet, again: Callable[[Call], None], stats: LaneStats) -> None:
        self._fleet = fleet
        self._again = again
        self._stats = stats
        self._waiting: dict[str, deque[tuple[Call, MartletError]]] = {}
        self._expected: dict[str, float] = {}  # when somebody was last
        self._timer: asyncio.TimerHandle | None = None

    def take(self, call: Call, error: MartletError) -> bool:
        """Lets a call wait that got an error for lack of room; returns False where that is its answer."""
        revision, now = call.target.revision, monotonic()
        if self._fleet.expects(revision):
            self._expected[revision.id] = now
        elif now - self._expected.get(revision.id, -LAG) >= LAG:
            return False
        waiting = self._waiting.get(revision.id, ())
        if now - call.arrived >= PATIENCE or len(waiting) >= revision.config.max_queue:
            return False
        self._waiting.setdefault(revision.id, deque()).append((call, error))
        if not call.deferred:  # it may be here for the second time
            call.deferred = True
            self._stats.function(revision.function).deferred += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)
        return True

    def _look(self) -> None:
        self._timer = None
        now, everybody = monotonic(), self._waiting
        self._waiting = {}
        self._expected = {name: at for name, at in self._expected.items() if now - at < LAG}
        for waiting in everybody.values():
            revision = waiting[0][0].target.revision
            if self._fleet.choose(revision) is not None or not self._fleet.expects(revision):
                for call, _ in waiting:
                    self._again(call)
                continue
            for call, error in waiting:
                if not call.exchange.gone and not self.take(call, error):
                    self._stats.refuse(error.code)
                    call.fail(error)
