"""A trace is replayed against policies of keep-alive: cold starts against memory that waits for a call.

A trace says how many invocations there were in a minute; they are taken to be spread evenly over it. Each function has
one instance when it has any: how many run side by side is nothing that keep-alive decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from martlet.scheduling.keepalive import IdleTimes, Windows, fixed
from martlet.simulation.trace import Trace, Traffic

MINUTE = 60.0

Policy = Callable[[IdleTimes], Windows]
"""Decides for a function, by its history, when it has instances."""


def keep_for(ttl: float) -> Policy:
    """Returns the policy of keeping every instance for a fixed time, seconds."""
    windows = fixed(ttl)
    return lambda _: windows


def learn(ttl: float) -> Policy:
    """Returns the policy that learns; ``ttl`` is for functions that nothing can be learned of."""
    return lambda history: history.windows(ttl)


@dataclass(slots=True)
class Outcome:
    """What became of a trace under a policy.

    Attributes:
        invocations: how many there were.
        cold_starts: how many of them found no instance.
        wasted: what instances took while they waited for a call, MB·s.
        rates: the share of cold starts of each function that was called.
    """

    invocations: int = 0
    cold_starts: int = 0
    wasted: float = 0.0
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The share of all invocations that were cold starts."""
        return self.cold_starts / max(1, self.invocations)

    def rate_of_functions(self, share: float) -> float:
        """Returns the share of cold starts that so many of the functions stay below, or are at."""
        ordered = sorted(self.rates)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def replay(trace: Trace, policies: Mapping[str, Policy]) -> dict[str, Outcome]:
    """Returns what each policy would have cost. Raises `Invalid` where the trace is malformed."""
    outcomes = {name: Outcome() for name in policies}
    for traffic in trace.traffic():
        if traffic.minutes:
            _replay_function(traffic, trace.minutes * MINUTE, policies, outcomes)
    return outcomes


def _replay_function(
    traffic: Traffic, end: float, policies: Mapping[str, Policy], outcomes: Mapping[str, Outcome]
) -> None:
    cold = dict.fromkeys(policies, 1)
    loaded = dict.fromkeys(policies, 0.0)
    history = IdleTimes()
    windows = {name: policy(history) for name, policy in policies.items()}
    free = None
    """When the last call ends."""
    invocations = 0

    def idle_for(idle: float, times: int) -> None:
        for name, each in windows.items():
            loaded[name] += each.loaded(idle) * times
            cold[name] += 0 if each.want(idle) else times

    for minute, count in traffic.minutes:
        invocations += count
        spacing = MINUTE / count
        arrival = minute * MINUTE + spacing / 2
        if free is not None and arrival > free:
            idle_for(arrival - free, 1)
            history.observe(arrival - free)
            windows = {name: policy(history) for name, policy in policies.items()}
        if spacing > traffic.run_time:
            idle_for(spacing - traffic.run_time, count - 1)
        last_end = arrival + (count - 1) * spacing + traffic.run_time
        free = last_end if free is None else max(free, last_end)
    if free is not None and free < end:
        for name, each in windows.items():
            loaded[name] += each.loaded(end - free)
    for name, outcome in outcomes.items():
        outcome.invocations += invocations
        outcome.cold_starts += cold[name]
        outcome.wasted += loaded[name] * traffic.memory
        outcome.rates.append(cold[name] / invocations)
