"""Counters of one lane, kept on the hot path. A lane has one thread, so they need no locks.

Each lane sends its own to control (`LaneStats.to_json`), which adds them up (`LaneStats.merge`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import asdict
from time import monotonic
from typing import Any, TypeVar

from martlet.telemetry.histogram import BOUNDS, Histogram
from martlet.telemetry.process import ProcessStats

Key = TypeVar("Key", str, int)

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


class FunctionStats:
    """What happened to the invocations of one function.

    Attributes:
        statuses: invocations by HTTP status.
        errors: those that ended in an error of Martlet's, by its code.
        cold_starts: those that waited for an instance to start.
        bytes_in: bytes of request bodies.
        bytes_out: bytes of response bodies.
        duration: from the arrival to the end.
        queue: waiting for a free slot.
        start: waiting for an instance to start, of cold starts only.
        run: from the hand-over to the instance to the end.
        accepted: asynchronous invocations that were put into the queue.
        attempts: asynchronous invocations that were tried, by how that went.
        deferred: invocations that had to wait for a machine that was away.
    """

    __slots__ = (
        "accepted",
        "attempts",
        "bytes_in",
        "bytes_out",
        "cold_starts",
        "deferred",
        "duration",
        "errors",
        "queue",
        "run",
        "start",
        "statuses",
    )

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.errors: dict[str, int] = {}
        self.cold_starts = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.duration = Histogram()
        self.queue = Histogram()
        self.start = Histogram()
        self.run = Histogram()
        self.accepted = 0
        self.attempts: dict[str, int] = {}
        self.deferred = 0

    def record(
        self,
        status: int,
        queue: float,
        start: float,
        run: float,
        cold: bool = False,
        bytes_in: int = 0,
        bytes_out: int = 0,
        error: str | None = None,
    ) -> None:
        """Counts a finished invocation; times are in seconds, ``error`` is the code of an error of ours."""
        # Written out instead of calling `Histogram.observe` three times: this runs for every request.
        whole = queue + start + run
        self.duration.counts[bisect_left(BOUNDS, whole)] += 1
        self.duration.total += whole
        self.queue.counts[bisect_left(BOUNDS, queue)] += 1
        self.queue.total += queue
        self.run.counts[bisect_left(BOUNDS, run)] += 1
        self.run.total += run
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        if cold:
            self.cold_starts += 1
            self.start.observe(start)
        if error is not None:
            self.errors[error] = self.errors.get(error, 0) + 1

    def attempt(self, outcome: str) -> None:
        """Counts an attempt at an asynchronous invocation."""
        self.attempts[outcome] = self.attempts.get(outcome, 0) + 1

    @property
    def requests(self) -> int:
        """How many invocations have finished."""
        return sum(self.statuses.values())

    @property
    def classes(self) -> dict[str, int]:
        """Invocations by class of status: ``{"2xx": 9, "5xx": 1}``."""
        classes: Counter[str] = Counter()
        for status, count in self.statuses.items():
            classes[f"{status // 100}xx"] += count
        return dict(sorted(classes.items()))

    def summary(self) -> dict[str, Any]:
        """Returns counts and percentiles as people want to see them; times are in milliseconds, or None."""
        return {
            "requests": self.requests,
            "statuses": self.classes,
            "errors": dict(sorted(self.errors.items())),
            "cold_starts": self.cold_starts,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "latency_ms": _percentiles(self.duration),
            "queue_ms": _percentiles(self.queue),
            "start_ms": _percentiles(self.start),
            "run_ms": _percentiles(self.run),
        }

    def add(self, other: FunctionStats) -> None:
        """Adds what the other has counted."""
        self.statuses = _sum(self.statuses, other.statuses)
        self.errors = _sum(self.errors, other.errors)
        self.cold_starts += other.cold_starts
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.duration.add(other.duration)
        self.queue.add(other.queue)
        self.start.add(other.start)
        self.run.add(other.run)
        self.accepted += other.accepted
        self.attempts = _sum(self.attempts, other.attempts)
        self.deferred += other.deferred

    def to_json(self) -> dict[str, Any]:
        """Returns the counters as a JSON-ready dict."""
        return {
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "errors": self.errors,
            "cold_starts": self.cold_starts,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "duration": self.duration.to_json(),
            "queue": self.queue.to_json(),
            "start": self.start.to_json(),
            "run": self.run.to_json(),
            "accepted": self.accepted,
            "attempts": self.attempts,
            "deferred": self.deferred,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FunctionStats:
        """Reads what `to_json` returned."""
        stats = cls()
        stats.statuses = {int(status): count for status, count in document["statuses"].items()}
        stats.errors = dict(document["errors"])
        stats.cold_starts = document["cold_starts"]
        stats.bytes_in = document["bytes_in"]
        stats.bytes_out = document["bytes_out"]
        stats.duration = Histogram.from_json(document["duration"])
        stats.queue = Histogram.from_json(document["queue"])
        stats.start = Histogram.from_json(document["start"])
        stats.run = Histogram.from_json(document["run"])
        stats.accepted = document["accepted"]
        stats.attempts = dict(document["attempts"])
        stats.deferred = document.get("deferred", 0)  # machines of before do not count them
        return stats


class LaneStats:
    """The counters of one lane, or of several that were merged.

    Attributes:
        functions: by name; only functions that exist, so that made-up names fill no memory.
        refused: requests that reached no function, by the code of the error that they were answered with.
        connections: open client connections.
        instances: living instances, by function, then by state.
        waiting: requests that wait for an instance, by function.
        cells: waiting cells, by runtime.
        processes: what the processes of Martlet use, by name.
        logs_wait_since: the `time.monotonic` since which the oldest log waits to be put aside; None where none does.
        logs_behind: the same in seconds, of all lanes that were added.
        logs_dropped: bytes of logs that were not put aside before they had to go.
    """

    __slots__ = (
        "cells",
        "connections",
        "functions",
        "instances",
        "logs_behind",
        "logs_dropped",
        "logs_wait_since",
        "processes",
        "refused",
        "waiting",
    )

    def __init__(self) -> None:
        self.functions: dict[str, FunctionStats] = {}
        self.refused: dict[str, int] = {}
        self.connections = 0
        self.instances: dict[str, dict[str, int]] = {}
        self.waiting: dict[str, int] = {}
        self.cells: dict[str, int] = {}
        self.processes: dict[str, ProcessStats] = {}
        self.logs_wait_since: float | None = None
        self.logs_behind = 0.0
        self.logs_dropped = 0

    def function(self, name: str) -> FunctionStats:
        """Returns the counters of a function, made where there are none; keep hold of it on the hot path."""
        stats = self.functions.get(name)
        if stats is None:
            stats = self.functions[name] = FunctionStats()
        return stats

    def refuse(self, code: str) -> None:
        """Counts a request that was answered with an error before it was any function's."""
        self.refused[code] = self.refused.get(code, 0) + 1

    def forget(self, function: str) -> None:
        """Drops the counters of a function."""
        self.functions.pop(function, None)

    def total(self) -> FunctionStats:
        """Returns the sum over all functions."""
        total = FunctionStats()
        for stats in self.functions.values():
            total.add(stats)
        return total

    def merge(self, document: dict[str, Any]) -> None:
        """Adds what another lane's `to_json` returned."""
        for name, stats in document["functions"].items():
            self.function(name).add(FunctionStats.from_json(stats))
        self.refused = _sum(self.refused, document["refused"])
        self.connections += document["connections"]
        for name, states in document["instances"].items():
            self.instances[name] = _sum(self.instances.get(name, {}), states)
        self.waiting = _sum(self.waiting, document.get("waiting", {}))  # lanes of before do not say
        self.cells = _sum(self.cells, document["cells"])
        for name, process in document["processes"].items():
            self.processes[name] = ProcessStats(**process)
        self.logs_behind = max(self.logs_behind, document["logs_behind"])
        self.logs_dropped += document["logs_dropped"]

    def to_json(self) -> dict[str, Any]:
        """Returns the counters as a JSON-ready dict."""
        return {
            "functions": {name: stats.to_json() for name, stats in self.functions.items()},
            "refused": self.refused,
            "connections": self.connections,
            "instances": self.instances,
            "waiting": self.waiting,
            "cells": self.cells,
            "processes": {name: asdict(process) for name, process in self.processes.items()},
            "logs_behind": 0.0 if self.logs_wait_since is None else monotonic() - self.logs_wait_since,
            "logs_dropped": self.logs_dropped,
        }


def _sum(one: dict[Key, int], other: dict[Key, int]) -> dict[Key, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in one | other}


def _percentiles(histogram: Histogram) -> dict[str, float | None]:
    """Returns the percentiles in milliseconds."""
    found = {name: histogram.percentile(share) for name, share in PERCENTILES.items()}
    return {name: None if value is None else round(value * 1000, 3) for name, value in found.items()}
