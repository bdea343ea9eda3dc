"""Instances that compute for long give way to those that answer soon.

Who wants a core that others want too gets it by weight, some milliseconds at a time. Beside neighbours that compute all
the time, a function that answers in a fraction of one would wait for their turns. So who computes weighs less, for as
long as it does: it has what others leave, and a share that does not end while they leave nothing.
"""

from __future__ import annotations

from martlet.drivers.driver import Handle, Weighing

LONG = 0.005
"""Seconds that a call runs before anybody looks: most are over by then."""
SHARE = 0.05
"""Share of the time between two looks from which on an instance is said to compute: it may have had to wait."""
LITTLE = 0.002
"""Share up to which one that gives way is said to wait again: giving way, it may get far less than it would compute."""
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds between two looks; each is twice as long as the one before, because there may be many calls that wait."""


class Burst:
    """Whether one instance computes.

    Args:
        driver: who lets it give way.
        handle: the instance.

    Attributes:
        seen: whether anybody has looked since it last ran no call.
    """

    def __init__(self, driver: Weighing, handle: Handle) -> None:
        self._driver = driver
        self._handle = handle
        self.seen = False
        self._gives_way = False
        self._last = (0.0, 0.0)
        self._next = 0.0
        self._pause = FIRST_PAUSE

    def look(self, now: float) -> None:
        """Sees what it does; called now and then while a call of it has run for `LONG`. ``now`` is `monotonic`."""
        if now < self._next or (used := self._driver.cpu_ms(self._handle)) is None:
            return
        if self.seen:
            then, before = self._last
            share = LITTLE if self._gives_way else SHARE
            self._give_way(used - before > share * (now - then) * 1e3)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.seen = True
        self._last = now, used
        self._next = now + self._pause

    def over(self) -> None:
        """It runs no call any more."""
        self.seen, self._next, self._pause = False, 0.0, FIRST_PAUSE
        self._give_way(False)

    def _give_way(self, gives: bool) -> None:
        if gives != self._gives_way:
            self._gives_way = gives
            self._driver.give_way(self._handle, gives)
