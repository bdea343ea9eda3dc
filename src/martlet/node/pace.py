"""How much of the event loop's time a kind of work may take."""

from __future__ import annotations


class Pace:
    """A bucket of seconds: it fills with time, and work empties it.

    Args:
        share: seconds of work allowed per second.
        burst: seconds of work that may be saved up.
    """

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._saved = burst
        self._seen = 0.0

    def spend(self, now: float, work: float) -> float:
        """Takes ``work`` seconds out at the time ``now``; returns how many seconds to pause after it."""
        self._saved = min(self._burst, self._saved + (now - self._seen) * self._share) - work
        self._seen = now
        return max(0.0, -self._saved / self._share)
