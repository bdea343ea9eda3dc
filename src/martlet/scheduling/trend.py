"""How many instances a function will need on all machines together: the slow loop, beside what nodes start at once.

As Knative's autoscaler does it: the calls at once are averaged over a long *stable* window; where a short *panic*
window asks for twice of what there is, that counts instead, and nothing is given up until the stable window is over.
How quickly the number rises and falls is limited. Times are seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor

PANIC = 2.0
"""How many times as many as there are the panic window asks for where it counts."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the loop goes by.

    Attributes:
        stable: length of the stable window.
        panic: length of the panic window.
        utilization: share of an instance's ``concurrency`` that is to be in use.
        up: how many times as many there may be after a panic window.
        down: by what the number may be divided within one.
    """

    stable: float = 60.0
    panic: float = 6.0
    utilization: float = 0.7
    up: float = 10.0
    down: float = 2.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many instances there should be, and why."""

    instances: int
    reason: str


class Trend:
    """The calls at once of a revision lately, and what was made of them."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._samples: deque[tuple[float, float]] = deque()
        self._level = 0.0
        self._decided: float | None = None
        self._panics_until = 0.0

    @property
    def over(self) -> bool:
        """Whether it says nothing any more: there were no calls, and no instances are wanted for them."""
        return not self._level and not any(calls for _, calls in self._samples)

    def observe(self, now: float, calls: float) -> None:
        """So many calls ran or waited at once."""
        self._samples.append((now, calls))
        while self._samples[0][0] <= now - self._pace.stable:
            self._samples.popleft()

    def forecast(self, now: float, ready: int, concurrency: int, most: int) -> Forecast:
        """Returns how many instances there should be.

        Args:
            now: it never goes back.
            ready: instances that there are.
            concurrency: calls that one takes.
            most: how many there may be.
        """
        pace, slots = self._pace, concurrency * self._pace.utilization
        stable, panic = self._mean(now, pace.stable), self._mean(now, pace.panic)
        wanted, urgent = ceil(stable / slots), ceil(panic / slots)
        if urgent >= PANIC * max(1, ready):
            self._panics_until = now + pace.stable
        panics = now < self._panics_until
        if panics:
            wanted = max(urgent, ceil(self._level))
        periods = 0.0 if self._decided is None else (now - self._decided) / pace.panic
        highest = max(self._level, ready, 1) * pace.up ** (periods or 1)
        lowest = self._level * pace.down**-periods
        level = min(max(float(wanted), lowest), highest, most)
        self._level, self._decided = level if level >= 1 else float(wanted and 1), now
        why = f"about {stable:.1f} calls at once in {pace.stable:g} s, {panic:.1f} in {pace.panic:g} s"
        if panics:
            why += ": panic, nothing is given up"
        if not lowest <= wanted <= highest:
            why += f"; {wanted} would do, but the number moves no quicker"
        return Forecast(floor(self._level), why)

    def _mean(self, now: float, window: float) -> float:
        lately = [calls for at, calls in self._samples if at > now - window] or [
            calls for _, calls in [*self._samples][-1:]
        ]
        return sum(lately) / len(lately) if lately else 0.0


def spread(instances: int, calls: Mapping[str, float], shares: Mapping[str, int]) -> dict[str, int]:
    """Returns how many of the instances each node has: as its calls are, and within its share."""
    parts: dict[str, int] = {}
    for _ in range(min(instances, sum(shares.values()))):
        free = [name for name in shares if parts.get(name, 0) < shares[name]]
        name = max(free, key=lambda name: (calls.get(name, 0.0) / (parts.get(name, 0) + 1), name))
        parts[name] = parts.get(name, 0) + 1
    return parts
