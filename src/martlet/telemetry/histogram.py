"""Durations in fixed buckets: cheap to note, and exact to add up over lanes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any

_STEPS = ("1", "1.25", "1.6", "2", "2.5", "3.15", "4", "5", "6.3", "8")

BOUNDS = tuple(float(f"{step}e{decade}") for decade in range(-5, 4) for step in _STEPS)
"""Upper bounds of the buckets in seconds, 10 µs to 8000 s; a last bucket takes what is longer.

They are Renard's preferred numbers (R10 of ISO 3), a quarter apart. So a percentile is off by a quarter at
worst, and the bounds that dashboards use (0.01, 0.025, 0.05) are among them.
"""

_EDGES = tuple(pairwise((0.0, *BOUNDS)))


class Histogram:
    """How often a duration fell into each bucket.

    Attributes:
        counts: by bucket; the n-th holds durations up to ``BOUNDS[n]``.
        total: the sum of all durations, in seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Notes a duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        """How many durations were noted."""
        return sum(self.counts)

    def percentile(self, share: float) -> float | None:
        """Returns the seconds that ``share`` (0 to 1) of all durations do not exceed; None if there are none.

        It is interpolated inside its bucket. What is longer than the last bound counts as that bound.
        """
        wanted = share * self.count
        below = 0
        for count, (lower, upper) in zip(self.counts, _EDGES, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below += count
        return BOUNDS[-1] if self.counts[-1] else None

    def add(self, other: Histogram) -> None:
        """Adds what the other has noted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def to_json(self) -> dict[str, Any]:
        """Returns the histogram as a JSON-ready dict, without the empty buckets."""
        return {"buckets": [[n, count] for n, count in enumerate(self.counts) if count], "total": self.total}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Histogram:
        """Reads what `to_json` returned."""
        histogram = cls()
        for number, count in document["buckets"]:
            histogram.counts[number] = count
        histogram.total = document["total"]
        return histogram
