"""When a function whose instances die one after the other may have the next.

To replace what dies at each request takes a core of neighbours for nothing. Answers between the deaths say that a
function is well, however often it dies.
"""

from __future__ import annotations

FREE = 3
"""Deaths in a row after which the next instance may start at once."""
FIRST, LONGEST = 0.1, 2.0
"""Seconds of the first pause and of the longest; each is twice as long as the one before. Callers wait meanwhile."""


class Backoff:
    """See the module; of one revision.

    Attributes:
        deaths: instances that have died, or have not loaded, since one last answered.
    """

    def __init__(self) -> None:
        self.deaths = 0
        self._until = 0.0

    @property
    def pause(self) -> float:
        """Seconds from a death or a start to the next start."""
        return min(FIRST * 2.0 ** min(self.deaths - FREE - 1, 10), LONGEST) if self.deaths > FREE else 0.0

    def died(self, now: float) -> None:
        """An instance has died; ``now`` is in seconds and never goes back."""
        self.deaths += 1
        self._until = now + self.pause

    def answered(self) -> None:
        """An instance has answered."""
        self.deaths = 0

    def grant(self, count: int, now: float) -> int:
        """Returns how many of so many instances may start now: all, or one after each pause. They count as started."""
        if self.deaths <= FREE:
            return count
        if now < self._until or not count:
            return 0
        self._until = now + self.pause
        return 1
