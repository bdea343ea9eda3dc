import os
import time
from mmap import mmap

import orjson
import pytest

from martlet.telemetry.process import ProcessStats
from martlet.telemetry.stats import FunctionStats, LaneStats


def lane(name: str = "hello", count: int = 1) -> LaneStats:
    stats = LaneStats()
    for _ in range(count):
        stats.function(name).record(200, 0.001, 0.0, 0.02, bytes_in=10, bytes_out=100)
    stats.function(name).record(502, 0.0, 0.3, 0.1, cold=True, error="function_crashed")
    stats.function(name).deferred = 2
    stats.refuse("unauthenticated")
    stats.connections = 3
    stats.instances = {name: {"idle": 1, "busy": 2}}
    stats.waiting = {name: 3}
    stats.cells = {"python3.11": 2}
    return stats


def test_invocations_are_counted() -> None:
    stats = lane(count=9).function("hello")
    assert stats.requests == 10
    assert stats.statuses == {200: 9, 502: 1}
    assert stats.classes == {"2xx": 9, "5xx": 1}
    assert stats.errors == {"function_crashed": 1}
    assert stats.cold_starts == 1
    assert (stats.bytes_in, stats.bytes_out) == (90, 900)
    assert stats.duration.total == pytest.approx(9 * 0.021 + 0.4)
    assert (stats.duration.count, stats.queue.count, stats.run.count) == (10, 10, 10)


def test_only_cold_starts_count_in_the_start_times() -> None:
    stats = lane(count=9).function("hello")
    assert stats.start.count == 1
    assert stats.start.total == 0.3


def test_a_summary_is_in_milliseconds() -> None:
    summary = lane(count=99).function("hello").summary()
    assert summary["requests"] == 100
    assert summary["statuses"] == {"2xx": 99, "5xx": 1}
    assert set(summary["latency_ms"]) == {"p50", "p90", "p95", "p99"}
    assert 20 <= summary["latency_ms"]["p50"] <= 25
    assert 250 <= summary["start_ms"]["p50"] <= 315
    assert FunctionStats().summary()["latency_ms"] == {"p50": None, "p90": None, "p95": None, "p99": None}


def test_lanes_add_up() -> None:
    merged = LaneStats()
    for stats in (lane(count=3), lane(count=4), lane("other")):
        merged.merge(orjson.loads(orjson.dumps(stats.to_json())))
    assert merged.function("hello").statuses == {200: 7, 502: 2}
    assert merged.function("hello").duration.count == 9
    assert merged.total().requests == 11
    assert merged.total().deferred == 6
    assert merged.refused == {"unauthenticated": 3}
    assert merged.connections == 9
    assert merged.waiting == {"hello": 6, "other": 3}
    assert merged.instances == {"hello": {"idle": 2, "busy": 4}, "other": {"idle": 1, "busy": 2}}
    assert merged.cells == {"python3.11": 6}


def test_merging_one_lane_gives_that_lane() -> None:
    stats = lane(count=3)
    stats.processes["lane-0"] = ProcessStats.measure()
    merged = LaneStats()
    merged.merge(stats.to_json())
    assert merged.to_json() == stats.to_json()


def test_merging_does_not_tie_lanes_together() -> None:
    stats, merged = lane(), LaneStats()
    document = stats.to_json()
    merged.merge(document)
    merged.function("hello").record(404, 0.0, 0.0, 0.1)
    merged.refuse("forbidden")
    merged.merge(document)
    assert stats.to_json() == lane().to_json()


def test_a_forgotten_function_has_no_counters() -> None:
    stats = lane()
    stats.forget("hello")
    stats.forget("hello")
    assert stats.functions == {}
    assert stats.total().requests == 0


def test_a_process_measures_itself() -> None:
    before = ProcessStats.measure()
    # Memory of its own: what a process has freed it may be given again, and then it has no more than before.
    with open(os.devnull), mmap(-1, 50_000_000) as ballast:
        end = time.process_time() + 0.05
        ballast.write(b"x" * len(ballast))
        while time.process_time() < end:
            pass
        after = ProcessStats.measure()
    assert after.cpu_seconds > before.cpu_seconds
    assert after.resident_bytes - before.resident_bytes > 50_000_000 // 2
    assert after.open_files == before.open_files + 1
    assert after.started == pytest.approx(before.started, abs=1)
    assert 0 < time.time() - after.started < time.clock_gettime(time.CLOCK_BOOTTIME)
