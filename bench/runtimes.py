"""What each runtime costs: builds, cold starts, warm requests, memory. The table is ``docs/runtimes-measured.md``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench import report
from bench.load import load, request_ms
from bench.platform import Platform, platform
from bench.row import Row

REPOSITORY = Path(__file__).parents[1]
FUNCTIONS = REPOSITORY / "tests/runtimes/functions"
PAGE = REPOSITORY / "docs/runtimes-measured.md"
WITHOUT = "-open-runtimes"
TARGET = "/text"
ALONE = 200
"""Requests one by one, to see what each takes outside of its instance."""
RUN = re.compile(rb"run;dur=([0-9.]+)")
CELL_SECONDS = 2.0
"""A ready cell of any runtime has been made anew by then."""

_ABOUT = """# What each runtime costs

Written by `bench runtimes` ([SPECIFICATION.md](../SPECIFICATION.md) says how long it measured): the function of each
language that its tests use, asked for a text, on one lane.

- **build**: `martlet deploy` from source, for the first time; again with nothing changed.
- **cold start**: from the request to the response, median, with a ready cell and without any.
- **warm**: median of one connection, all that the platform adds included; requests/s of 32 connections.
- **alone**: what a request takes that comes alone, median: the function, its shim or client, and what is added. Where
  this and the warm median are under a millisecond, so is what the platform adds, all of the shim counted.
- **added**: what such a request takes, less the time from sending it to the instance until its answer is
  there (`run` of `Server-Timing`), median: what the platform adds, and what the client takes, which is in Python.
- **memory**: what the cgroup of an instance holds after its first requests.

"""


def runtimes(seconds: float, starts: int) -> Iterator[Row]:
    """Measures every runtime that this machine has; ``starts`` cold starts of each, and load for ``seconds``."""
    options = {"lanes": 1, "build_network": "host", "toolchains_path": [str(REPOSITORY / ".toolchains")]}
    rows: dict[str, Row] = {}
    with platform(min_cells=1, max_cells=2, **options) as running:
        here = {name for each in running.client.runtimes() if each["builds"] for name in each["names"]}
        names = sorted(path.name for path in FUNCTIONS.iterdir() if not path.name.endswith(WITHOUT))
        names = [name for name in names if name in here]
        for name in names:
            rows[name] = _built_and_warm(running, name, seconds)
        for name in names:
            rows[name]["cold, ready cell ms"] = _cold(running, name, starts, CELL_SECONDS)
    with platform(min_cells=0, max_cells=0, **options) as running:
        for name in names:
            running.client.deploy(name, FUNCTIONS / name, _config(name))
            rows[name]["cold, no cell ms"] = _cold(running, name, starts, 0.0)
    yield from rows.values()
    PAGE.write_text(_ABOUT + report.markdown([*rows.values()]))


def _built_and_warm(running: Platform, name: str, seconds: float) -> Row:
    took = []
    for _ in range(2):
        began = time.perf_counter()
        running.client.deploy(name, FUNCTIONS / name, _config(name))
        took.append(time.perf_counter() - began)
    path = f"/functions/{name}{TARGET}"
    running.first_response(path)
    alone = load(running.url, [path], connections=1, seconds=seconds, key=running.key)
    many = load(running.url, [path], connections=32, seconds=seconds, key=running.key)
    whole, outside = zip(*(_alone_ms(running, path) for _ in range(ALONE)), strict=True)
    memory = [each["memory_bytes"] for each in running.client.instances() if each["function"] == name]
    return {
        "runtime": name,
        "build s": round(took[0], 2),
        "unchanged ms": round(took[1] * 1e3),
        "warm p50 ms": round(alone.p50, 3),
        "alone ms": round(median(whole), 3),
        "added ms": round(median(outside), 3),
        "req/s": round(many.rate),
        "failed": alone.failed + many.failed,
        "MiB": round(max(memory) / 2**20, 1),
    }


def _alone_ms(running: Platform, path: str) -> tuple[float, float]:
    """Returns what one request takes on a new connection: in all, and outside of the instance."""
    took, answer = request_ms(running.port, path, running.key)
    run = RUN.search(answer)
    assert run is not None, answer
    return took, took - float(run[1])


def _cold(running: Platform, name: str, count: int, settle: float) -> float:
    took = []
    for _ in range(count):
        running.stop_instances(settle)
        took.append(running.first_response(f"/functions/{name}{TARGET}"))
    return round(median(took), 1)


def _config(name: str) -> dict[str, object]:
    return {"runtime": name, "rate_limit": "100000000/min", "memory": "256Mi"}
