"""The clock of a lane: it watches deadlines and waiting calls, and stands still while there are none."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from martlet.node.burst import LONG
from martlet.node.slot import Slot

if TYPE_CHECKING:
    from martlet.node.pool import Pool

TICK = 0.01
"""Seconds between looks at deadlines and waiting calls, while there are any."""


class Clock:
    """See the module."""

    def __init__(self) -> None:
        self._watched: set[Slot] = set()
        self._pressed: set[Pool] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, slot: Slot) -> None:
        """Ends the slot's instance when a call runs past its deadline. It is watched until it is seen idle."""
        slot.watched = True
        self._watched.add(slot)
        self._wake()

    def press(self, pool: Pool) -> None:
        """Lets a pool with waiting calls grow when it may, until none waits any more."""
        self._pressed.add(pool)
        self._wake()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = monotonic()
        for slot in tuple(self._watched):
            overdue = slot.call is not None and slot.deadline < now
            if overdue or slot.call is None:
                slot.watched = False
                self._watched.discard(slot)
            if overdue:
                slot.instance.overdue(slot)
            elif slot.call is not None and now - slot.call.sent > LONG:
                slot.instance.look(now)
        for pool in tuple(self._pressed):
            if pool.waiting:
                pool.grow()
            else:
                self._pressed.discard(pool)
        if self._watched or self._pressed:
            self._wake()
