"""Counters as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from martlet import __version__
from martlet.telemetry.histogram import BOUNDS, Histogram
from martlet.telemetry.stats import FunctionStats, LaneStats

Waiting = Mapping[str, Mapping[str, int]]
"""Asynchronous invocations that wait, by function and state."""

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SHOWN = [
    (number, str(bound))
    for number, bound in enumerate(BOUNDS)
    if 0.0005 <= bound <= 100 and f"{bound:.1e}".startswith(("1.0", "2.5", "5.0"))
]
"""Number and label of the buckets that are shown, three a decade."""


def exposition(
    stats: LaneStats,
    waiting: Waiting,
    leads: bool,
    nodes: Mapping[str, int],
    builds: Mapping[str, int],
) -> bytes:
    """Returns the metrics in Prometheus' text format, to be sent as `CONTENT_TYPE`.

    Args:
        stats: the merged counters of all lanes.
        waiting: what waits in queues.
        leads: whether the control that is asked leads.
        nodes: how many nodes are in each state, as far as that control knows.
        builds: likewise, deploys that have not ended.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatsCollector(stats, waiting, leads, nodes, builds))
    return generate_latest(registry)


class StatsCollector(Collector):
    """The metrics of Martlet. Every family is there even when it has no samples."""

    def __init__(
        self,
        stats: LaneStats,
        waiting: Waiting,
        leads: bool,
        nodes: Mapping[str, int],
        builds: Mapping[str, int],
    ) -> None:
        self._stats = stats
        self._waiting = waiting
        self._leads = leads
        self._nodes = nodes
        self._builds = builds

    def collect(self) -> Iterator[Metric]:
        """Yields the families."""
        yield from self._invocations()
        yield from self._times()
        yield from self._asynchronous()
        yield from self._holdings()
        yield from self._processes()

    def _invocations(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "martlet_requests", "Finished invocations by HTTP status.", labels=["function", "code"]
        )
        errors = CounterMetricFamily(
            "martlet_errors",
            "Invocations that ended in an error of the platform's.",
            labels=["function", "error"],
        )
        refused = CounterMetricFamily(
            "martlet_refused_requests",
            "Requests answered with an error before any function.",
            labels=["error"],
        )
        for name, stats in sorted(self._stats.functions.items()):
            for status, count in sorted(stats.statuses.items()):
                requests.add_metric([name, str(status)], count)
            for error, count in sorted(stats.errors.items()):
                errors.add_metric([name, error], count)
        for error, count in sorted(self._stats.refused.items()):
            refused.add_metric([error], count)
        yield from (requests, errors, refused)
        yield self._counter(
            "martlet_cold_starts", "Invocations that waited for an instance.", lambda stats: stats.cold_starts
        )
        yield self._counter(
            "martlet_deferred_requests",
            "Invocations that had to wait for a machine that was away, as no other may run their function.",
            lambda stats: stats.deferred,
        )
        yield self._counter(
            "martlet_received_bytes", "Bytes of request bodies.", lambda stats: stats.bytes_in
        )
        yield self._counter("martlet_sent_bytes", "Bytes of response bodies.", lambda stats: stats.bytes_out)

    def _times(self) -> Iterator[Metric]:
        whole = HistogramMetricFamily(
            "martlet_request_duration_seconds",
            "Time of an invocation from its arrival to its end.",
            labels=["function"],
        )
        for name, stats in sorted(self._stats.functions.items()):
            _add_histogram(whole, [name], stats.duration)
        yield whole
        # Its parts are not told by function: that would be four times as many lines, and most of a scrape.
        total = self._stats.total()
        for part, meaning, histogram in (
            ("queue", "Time invocations waited for a slot.", total.queue),
            ("start", "Time cold starts waited for their instance.", total.start),
            ("run", "Time invocations spent in their instance.", total.run),
        ):
            family = HistogramMetricFamily(f"martlet_{part}_duration_seconds", meaning, labels=[])
            _add_histogram(family, [], histogram)
            yield family

    def _asynchronous(self) -> Iterator[Metric]:
        yield self._counter(
            "martlet_async_accepted",
            "Asynchronous invocations that were put into the queue.",
            lambda stats: stats.accepted,
        )
        attempts = CounterMetricFamily(
            "martlet_async_attempts",
            "Attempts at asynchronous invocations; `postponed` ones found no room in the function.",
            labels=["function", "outcome"],
        )
        for name, stats in sorted(self._stats.functions.items()):
            for outcome, count in sorted(stats.attempts.items()):
                attempts.add_metric([name, outcome], count)
        waiting = GaugeMetricFamily(
            "martlet_async_invocations",
            "Asynchronous invocations in the queue; `dead` ones were given up.",
            labels=["function", "state"],
        )
        for name, states in sorted(self._waiting.items()):
            for state, count in states.items():
                waiting.add_metric([name, state], count)
        yield from (attempts, waiting)

    def _holdings(self) -> Iterator[Metric]:
        instances = GaugeMetricFamily("martlet_instances", "Living instances.", labels=["function", "state"])
        for name, states in sorted(self._stats.instances.items()):
            for state, count in sorted(states.items()):
                instances.add_metric([name, state], count)
        waiting = GaugeMetricFamily(
            "martlet_waiting_requests",
            "Requests that wait for an instance of their function.",
            labels=["function"],
        )
        for name in sorted(self._stats.functions):
            waiting.add_metric([name], self._stats.waiting.get(name, 0))
        cells = GaugeMetricFamily("martlet_cells", "Cells that wait for a function.", labels=["runtime"])
        for runtime, count in sorted(self._stats.cells.items()):
            cells.add_metric([runtime], count)
        yield from (instances, waiting, cells)
        yield GaugeMetricFamily(
            "martlet_connections", "Open client connections.", value=self._stats.connections
        )

    def _processes(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("martlet_info", "Always 1; says which version this is.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield GaugeMetricFamily(
            "martlet_leader",
            "1 where the control that was asked leads those that share the store, else 0.",
            value=int(self._leads),
        )
        nodes = GaugeMetricFamily(
            "martlet_nodes", "Nodes that share the store, as `martlet nodes` lists them.", labels=["state"]
        )
        for state, count in sorted(self._nodes.items()):
            nodes.add_metric([state], count)
        yield nodes
        builds = GaugeMetricFamily(
            "martlet_builds",
            "Deploys of all machines that have not ended: `waiting` for a machine that builds, or `building`.",
            labels=["state"],
        )
        for state, count in sorted(self._builds.items()):
            builds.add_metric([state], count)
        yield builds
        yield GaugeMetricFamily(
            "martlet_log_shipping_lag_seconds",
            "Time for which the oldest log that is not in `system.log_store` has waited for it; 0 without one.",
            value=self._stats.logs_behind,
        )
        yield CounterMetricFamily(
            "martlet_log_dropped_bytes",
            "Bytes of logs that had to go before they were in `system.log_store`.",
            value=self._stats.logs_dropped,
        )
        by = ["process"]
        cpu = CounterMetricFamily("martlet_process_cpu_seconds", "CPU time of a process.", labels=by)
        memory = GaugeMetricFamily("martlet_process_resident_memory_bytes", "Memory of a process.", labels=by)
        files = GaugeMetricFamily("martlet_process_open_fds", "Open descriptors of a process.", labels=by)
        start = GaugeMetricFamily(
            "martlet_process_start_time_seconds", "Start of a process, since the epoch.", labels=by
        )
        for name, process in sorted(self._stats.processes.items()):
            cpu.add_metric([name], process.cpu_seconds)
            memory.add_metric([name], process.resident_bytes)
            files.add_metric([name], process.open_files)
            start.add_metric([name], process.started)
        yield from (cpu, memory, files, start)

    def _counter(self, name: str, meaning: str, value: Callable[[FunctionStats], int]) -> Metric:
        family = CounterMetricFamily(name, meaning, labels=["function"])
        for function, stats in sorted(self._stats.functions.items()):
            family.add_metric([function], value(stats))
        return family


def _add_histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    sums = list(accumulate(histogram.counts))
    buckets = [(le, sums[number]) for number, le in _SHOWN]
    family.add_metric(labels, [*buckets, ("+Inf", sums[-1])], histogram.total)
