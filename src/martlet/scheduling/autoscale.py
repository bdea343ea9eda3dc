"""How many instances a pool should start now."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

WORTHWHILE = 0.02
"""Seconds of waiting that are worth another instance, however quickly one starts: it takes memory and a share of the
core, so shorter queues are left to drain."""

CORE_FULL = 0.1
"""Below this share of idle time a core is taken to be full."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a pool sees: counts, and times in seconds.

    Attributes:
        waiting: requests that have no slot.
        instances: those that are ready.
        starting: those on their way.
        concurrency: slots an instance has.
        run_time: what a request takes, as far as is known (0: nothing is known).
        oldest_run: how long the longest of the running requests has run.
        start_time: what starting an instance takes.
        room: how many more there may be.
        core_idle: the share of time that the core they would run on has had nothing to do, from 0 to 1.
    """

    waiting: int
    instances: int
    starting: int
    concurrency: int
    run_time: float
    oldest_run: float
    start_time: float
    room: int
    core_idle: float


def instances_to_start(load: Load) -> int:
    """Starts an instance only where waiting for a slot takes longer than starting one.

    A function that answers in microseconds is served best by few instances even under hundreds of connections; one
    that runs for a second needs an instance per request at once. How long a request runs is taken from the past, and
    from the request that runs now where that has run longer than a start takes: so a slow function shows itself
    within one ``start_time``, and a short stall of a quick one is no reason to start anything.
    """
    if not load.waiting or load.room <= 0:
        return 0
    if load.instances == 0:
        return 0 if load.starting else 1
    slots = load.instances * load.concurrency
    patience = max(load.start_time, WORTHWHILE)
    run_time = max(load.run_time, load.oldest_run) if load.oldest_run > patience else load.run_time
    if run_time < patience and load.core_idle < CORE_FULL:
        return 0
    work = run_time * load.waiting
    if work <= patience * slots:
        return 0
    slots_wanted = min(load.waiting + slots, ceil(work / patience))
    wanted = ceil((slots_wanted - slots) / load.concurrency) - load.starting
    return max(0, min(wanted, load.room))
