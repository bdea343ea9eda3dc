"""How busy the core is that this lane and its instances share."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

WINDOW = 0.1
"""Seconds a measurement covers at least; the kernel counts in hundredths."""

_STAT = Path("/proc/stat")
_IDLE = (3, 4)
"""Fields of a core's line that count time without work: idle and iowait (proc(5))."""


class Core:
    """The cores this process may run on, taken together."""

    def __init__(self) -> None:
        self._names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        self._share = 0.0
        self._measured = monotonic()
        self._last = self._count()

    def idle(self) -> float:
        """Returns the share of time without work, from 0 to 1, lately; 0 while nothing is known."""
        now = monotonic()
        if now - self._measured >= WINDOW:
            idle, total = self._count()
            passed = total - self._last[1]
            self._share = (idle - self._last[0]) / passed if passed > 0 else 0.0
            self._measured, self._last = now, (idle, total)
        return self._share

    def _count(self) -> tuple[int, int]:
        idle = total = 0
        for line in _STAT.read_text().splitlines():
            name, *fields = line.split()
            if name in self._names:
                counts = list(map(int, fields[:8]))
                total += sum(counts)
                idle += sum(counts[field] for field in _IDLE)
        return idle, total
