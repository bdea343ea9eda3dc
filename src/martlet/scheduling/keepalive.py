"""How long a function keeps its instances when nobody calls it, and when it gets them back ahead of the next call.

This is the hybrid histogram policy of "Serverless in the Wild" (Shahrad et al., USENIX ATC 2020, section 4.2): a
histogram of a function's idle times says when its next call is due; where the histogram does not represent them, the
function is kept for a fixed time, as all are without it. Two things differ. Calls in quick succession are one use: idle
times under a minute are not counted, and a function keeps its instances for a minute in any case; otherwise a burst of
calls would hide the hours between bursts. And where most idle times are beyond the histogram, the next is taken to be
like the last few if these are alike, instead of fitting a model of a time series (ARIMA) to them.

Times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from math import sqrt
from statistics import median
from typing import Any, Self

BIN = 60.0
BINS = 45
"""A histogram reaches three quarters of an hour: waiting longer than that for a call costs more than it saves."""
LINGER = BIN
"""A function in use is not idle for less than this."""
FEWEST = 5
"""Idle times from which something can be learned."""
HEAD, TAIL = 0.05, 0.99
"""Shares of the idle times that are shorter than what a function is idle for at least, and at most."""
MARGIN = 0.1
"""By how much the next idle time may be shorter than the head, and longer than the tail."""
UNEVEN = 2.0
"""Coefficient of variation of the bins from which they say more than that anything is possible."""
FAR_KEPT = 5
FAR_MARGIN = 0.15
"""By how much idle times beyond the histogram may differ from their median to be alike."""
MOST_COUNTED = 1000
"""When so many idle times are counted, all counts are halved: what was long ago weighs less."""
MEMORY_RESERVE = 0.1
"""Share of the machine's memory below which nothing is started that nobody waits for."""


class Basis(StrEnum):
    """What windows were derived from."""

    TTL = "ttl"
    FEW = "few"
    HISTOGRAM = "histogram"
    SPREAD = "spread"
    FAR = "far"
    IRREGULAR = "irregular"


@dataclass(frozen=True, slots=True)
class Windows:
    """When a function that is idle has instances: for ``linger`` seconds, and again from ``begin`` to ``end``.

    Attributes:
        linger: from the end of its last call.
        begin: when its next call is due at the earliest; ``linger`` at most where it keeps its instances till then.
        end: when its next call is due at the latest.
        basis: what they are derived from.
    """

    linger: float
    begin: float
    end: float
    basis: Basis

    @property
    def learned(self) -> bool:
        """Whether they are the function's own."""
        return self.basis in (Basis.HISTOGRAM, Basis.FAR)

    @property
    def prewarms(self) -> bool:
        """Whether instances go and come back, rather than stay until the next call is due."""
        return self.begin > self.linger

    def want(self, idle: float) -> bool:
        """Whether a function has instances that has been idle for so long."""
        return idle < self.linger or self.begin <= idle < self.end

    def loaded(self, idle: float) -> float:
        """Returns for how much of an idle time the function has had instances."""
        again = max(self.begin, self.linger)
        return min(idle, self.linger) + max(0.0, min(idle, self.end) - again)


def fixed(ttl: float, basis: Basis = Basis.TTL) -> Windows:
    """Returns the windows of a function that keeps its instances for a fixed time."""
    return Windows(ttl, ttl, ttl, basis)


class IdleTimes:
    """What is remembered of the idle times of a function: some 400 bytes as JSON at most.

    Attributes:
        counts: how many there were of each minute.
        far: the last few of those that were longer than the histogram reaches.
        far_count: how many there were of these.
    """

    __slots__ = ("counts", "far", "far_count")

    def __init__(self) -> None:
        self.counts = [0] * BINS
        self.far: list[float] = []
        self.far_count = 0

    @property
    def known(self) -> int:
        """How many are remembered."""
        return sum(self.counts) + self.far_count

    def observe(self, idle: float) -> None:
        """Adds one; one that is shorter than `LINGER` is none."""
        if idle < LINGER:
            return
        minute = int(idle // BIN)
        if minute < BINS:
            self.counts[minute] += 1
        else:
            self.far = [*self.far, idle][-FAR_KEPT:]
            self.far_count += 1
        if self.known >= MOST_COUNTED:
            self.counts = [count // 2 for count in self.counts]
            self.far_count //= 2

    def windows(self, ttl: float) -> Windows:
        """Returns when the function should have instances; ``ttl`` is how long where it cannot be told."""
        near = sum(self.counts)
        if near + self.far_count < FEWEST:
            return fixed(ttl, Basis.FEW)
        if self.far_count > near:
            return self._far_windows(ttl)
        mean = near / BINS
        variance = sum(count * count for count in self.counts) / BINS - mean * mean
        if sqrt(max(0.0, variance)) < UNEVEN * mean:
            return fixed(ttl, Basis.SPREAD)
        below = list(accumulate(self.counts))
        head = next(minute for minute, count in enumerate(below) if count >= max(1, HEAD * near))
        tail = next(minute for minute, count in enumerate(below) if count >= TAIL * near) + 1
        return Windows(LINGER, head * BIN * (1 - MARGIN), tail * BIN * (1 + MARGIN), Basis.HISTOGRAM)

    def _far_windows(self, ttl: float) -> Windows:
        usual = median(self.far)
        if len(self.far) < 2 or any(abs(idle - usual) > FAR_MARGIN * usual for idle in self.far):
            return fixed(ttl, Basis.IRREGULAR)
        return Windows(LINGER, usual * (1 - FAR_MARGIN), usual * (1 + FAR_MARGIN), Basis.FAR)

    def to_json(self) -> dict[str, Any]:
        """Returns it as a JSON-ready dict."""
        return {
            "counts": self.counts,
            "far": [round(idle) for idle in self.far],
            "far_count": self.far_count,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what `to_json` returned. Raises ValueError, TypeError or KeyError where it is something else."""
        idle = cls()
        counts = [int(count) for count in document["counts"]]
        if len(counts) != BINS or min(counts) < 0:
            raise ValueError(f"not {BINS} counts")
        idle.counts = counts
        idle.far = [float(one) for one in document["far"]][-FAR_KEPT:]
        idle.far_count = int(document["far_count"])
        return idle


def instances_to_prewarm(put_away: int, held: int, room: int, memory_available: float) -> int:
    """Returns how many instances to start ahead of a call that is due.

    Args:
        put_away: how many there were when the function was put away.
        held: how many there are, or are on their way.
        room: how many more there may be: of the function, and on this node.
        memory_available: share of the machine's memory that is available, from 0 to 1.
    """
    if memory_available < MEMORY_RESERVE:
        return 0
    return max(0, min(put_away - held, room))
