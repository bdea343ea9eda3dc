"""Lines that come from several places, put into the order of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from martlet.model import LogLine


class Settling:
    """Holds each line back for a while, so that older ones which come meanwhile go before it.

    So a line is out of order only if it comes more than ``delay`` after a line that is younger.

    Args:
        delay: seconds that a line is held back.
    """

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._held: list[tuple[float, int, LogLine]] = []
        self._arrivals: deque[tuple[float, float]] = deque()
        self._count = count()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, line: LogLine, now: float) -> None:
        """Takes a line that has come ``now``, in seconds of a clock that only goes forward."""
        heappush(self._held, (line.time, next(self._count), line))
        self._arrivals.append((now, line.time))

    def due(self, now: float) -> Iterator[LogLine]:
        """Yields the lines that were held back for long enough, and the older ones with them."""
        settled = float("-inf")
        while self._arrivals and self._arrivals[0][0] + self._delay <= now:
            settled = max(settled, self._arrivals.popleft()[1])
        while self._held and self._held[0][0] <= settled:
            yield heappop(self._held)[2]

    def wait(self, now: float) -> float | None:
        """Returns the seconds until the next line is due; None where none is held back."""
        return max(0.0, self._arrivals[0][0] + self._delay - now) if self._held else None
