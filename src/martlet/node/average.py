"""How many calls ran at once lately."""

from __future__ import annotations

LEARNING = 0.2
"""Weight of the newest value in moving averages."""
SHORTEST = 0.1
"""Seconds between two looks, at least: less would make much of little."""


class CallsAtOnce:
    """A moving average of what each time between two looks had.

    Attributes:
        value: the average.
    """

    def __init__(self) -> None:
        self.value = 0.0
        self._ended = self._before = 0.0

    def ended(self, seconds: float) -> None:
        """A call is over that ran for so long."""
        self._ended += seconds

    def look(self, running: float, since: float) -> None:
        """Learns what the time since the look before had.

        Args:
            running: seconds for which the calls that run now have run, all together.
            since: seconds since the look before.
        """
        ran = self._ended + running
        self.value += LEARNING * (max(0.0, ran - self._before) / max(since, SHORTEST) - self.value)
        self._before = ran
