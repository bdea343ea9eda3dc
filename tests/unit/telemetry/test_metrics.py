import re

from prometheus_client.parser import text_string_to_metric_families

from martlet import __version__
from martlet.telemetry.metrics import CONTENT_TYPE, StatsCollector, exposition
from martlet.telemetry.process import ProcessStats
from martlet.telemetry.stats import LaneStats


def some_stats() -> LaneStats:
    stats = LaneStats()
    hello = stats.function("hello")
    hello.record(200, 0.001, 0.0, 0.003, bytes_in=5, bytes_out=7)
    hello.record(200, 0.0, 0.05, 0.003, cold=True)
    hello.record(504, 0.0, 0.0, 30.0, error="function_timeout")
    stats.function("other").record(201, 0.0, 0.0, 0.2)
    hello.deferred = 6
    stats.refuse("unauthenticated")
    stats.connections = 4
    stats.instances = {"hello": {"idle": 1, "busy": 2}}
    stats.waiting = {"hello": 7}
    stats.cells = {"python3.11": 2}
    stats.processes = {"lane-0": ProcessStats(1.5, 1000, 10, 99.0)}
    return stats


def samples(stats: LaneStats) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(
            exposition(stats, {}, True, {"ready": 2}, {"waiting": 1}).decode()
        )
        for sample in family.samples
    }


def test_counters_have_their_labels() -> None:
    found = samples(some_stats())
    assert found["martlet_requests_total", "200", "hello"] == 2
    assert found["martlet_requests_total", "504", "hello"] == 1
    assert found["martlet_requests_total", "201", "other"] == 1
    assert found["martlet_errors_total", "function_timeout", "hello"] == 1
    assert found["martlet_refused_requests_total", "unauthenticated"] == 1
    assert found["martlet_cold_starts_total", "hello"] == 1
    assert found["martlet_deferred_requests_total", "hello"] == 6
    assert found["martlet_received_bytes_total", "hello"] == 5
    assert found["martlet_sent_bytes_total", "hello"] == 7


def test_gauges_show_what_is_there_now() -> None:
    found = samples(some_stats())
    assert found["martlet_instances", "hello", "idle"] == 1
    assert found["martlet_waiting_requests", "hello"] == 7
    assert found["martlet_info", __version__] == 1
    assert found["martlet_instances", "busy", "hello"] == 2
    assert found["martlet_cells", "python3.11"] == 2
    assert found["martlet_connections",] == 4
    assert found["martlet_process_cpu_seconds_total", "lane-0"] == 1.5
    assert found["martlet_process_resident_memory_bytes", "lane-0"] == 1000
    assert found["martlet_process_open_fds", "lane-0"] == 10
    assert found["martlet_process_start_time_seconds", "lane-0"] == 99


def test_histograms_are_cumulative_and_in_seconds() -> None:
    found = samples(some_stats())
    buckets = [found["martlet_request_duration_seconds_bucket", le, "hello"] for le in ("0.0025", "0.005")]
    assert buckets == [0, 1]
    assert found["martlet_request_duration_seconds_bucket", "0.1", "hello"] == 2
    assert found["martlet_request_duration_seconds_bucket", "50.0", "hello"] == 3
    assert found["martlet_request_duration_seconds_bucket", "+Inf", "hello"] == 3
    assert found["martlet_request_duration_seconds_count", "hello"] == 3
    assert round(found["martlet_request_duration_seconds_sum", "hello"], 6) == 30.057
    assert found["martlet_run_duration_seconds_count",] == 4
    assert found["martlet_start_duration_seconds_count",] == 1
    assert found["martlet_queue_duration_seconds_bucket", "0.0005"] == 3


def test_names_follow_the_conventions() -> None:
    for family in StatsCollector(LaneStats(), {}, True, {}, {}).collect():
        assert re.fullmatch(r"martlet(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_every_family_is_there_before_anything_happened() -> None:
    named = {family.name for family in StatsCollector(LaneStats(), {}, True, {}, {}).collect()}
    assert named == {family.name for family in StatsCollector(some_stats(), {}, True, {}, {}).collect()}
    text = exposition(LaneStats(), {}, True, {}, {}).decode()
    for name in named:
        assert f"# TYPE {name}" in text
    assert CONTENT_TYPE.startswith("text/plain")
