"""What a function costs in a container: cold starts, warm requests and idle instances, beside processes and engines."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from itertools import product
from statistics import median

from bench import engines
from bench.density import hold
from bench.load import Load, load
from bench.platform import Platform, platform
from bench.row import Row, latencies

RUNTIMES = ("crun", "runc", "runsc")
CELLS = 1
"""Ready cells of each lane: enough for requests one by one, and made anew before the next."""
STOCKED_SECONDS = 120.0
PAUSE = 0.1
"""Seconds after which the work of making them is over."""
RUNGS = ("process", "container")
MANY = 32
CONNECTIONS = (1, MANY)
WARM_UP = 1.0
SLOWER = {"runsc": 3}
"""By how much less often what takes longer is started."""
PEER_STARTS = 5
ROUNDS = 3
FEWER = 20
"""By how much fewer containers of the other runtimes are held than of the first: each is much like the next."""


def containers(seconds: float, starts: int, instances: int) -> Iterator[Row]:
    """Measures each runtime that this machine has, all in one run.

    Args:
        seconds: of load, for each figure.
        starts: cold starts of each kind.
        instances: containers of the first runtime to hold.
    """
    present = [name for name in RUNTIMES if shutil.which(name)]
    for name in set(RUNTIMES) - set(present):
        yield {"server": name, "missing": "it is not on this machine"}
    for name in ("process", *present):
        yield from _cold(name, starts // SLOWER.get(name, 1))
    for name, engine in engines.ENGINES.items():
        with engine() as running:
            running.first_response()  # which reads from the disk what nobody has read yet
            yield latencies(f"cold {name} run", [running.first_response() for _ in range(PEER_STARTS)])
    for name in present:
        yield _warm(name, seconds)
    for number, name in enumerate(present):
        yield _idle(name, instances // FEWER if number else instances)


def _cold(name: str, count: int) -> Iterator[Row]:
    """Functions that have never run, one by one, with a ready cell for each and without any."""
    settings = {"default_mode": "process"} if name == "process" else _in_containers(name)
    with platform(min_cells=CELLS, max_cells=CELLS, **settings) as running:
        yield latencies(f"cold start, {name}, with a ready cell", first_responses(running, count, CELLS))
    with platform(min_cells=0, max_cells=0, **settings) as running:
        yield latencies(f"cold start, {name}, without a cell", first_responses(running, count, 0))


def first_responses(running: Platform, count: int, cells: int, pause: float = PAUSE) -> list[float]:
    """Returns the ms that each of ``count`` new functions takes, one by one, while lanes have so many ready cells.

    The cells have been ready for ``pause`` seconds then.
    """
    for number in range(count):
        running.deploy(f"cold-{number}")
    running.stop_instances()
    took = []
    for number in range(count):
        _wait_for_cells(running, cells)
        time.sleep(pause)
        took.append(running.first_response(f"/invoke/cold-{number}"))
    return took


def _wait_for_cells(running: Platform, cells: int) -> None:
    """Returns once each lane has its ready cells."""
    deadline = time.monotonic() + STOCKED_SECONDS
    while sum((stats := running.client.stats())["cells"].values()) < cells * stats["lanes"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"there are not {cells} ready cells a lane: {stats['cells']}")
        time.sleep(0.05)


def _warm(name: str, seconds: float) -> Row:
    """One function on both rungs of a platform, loaded in turn, so that what else the machine does meets both."""
    seen: dict[tuple[str, int], list[Load]] = {}
    with platform(**_in_containers(name)) as running:
        for rung in RUNGS:
            running.deploy(rung, execution_mode=rung)
        for connections in CONNECTIONS:
            for rung in RUNGS:
                _load(running, rung, connections, WARM_UP)
            for _, rung in product(range(ROUNDS), RUNGS):
                answered = _load(running, rung, connections, seconds // 2)
                seen.setdefault((rung, connections), []).append(answered)
    p50 = {rung: median(each.p50 for each in seen[rung, 1]) for rung in RUNGS}
    rate = {rung: median(each.rate for each in seen[rung, MANY]) for rung in RUNGS}
    return {
        "server": f"warm, {name}",
        "p50 ms": round(p50["container"], 3),
        "p50 of process ms": round(p50["process"], 3),
        "added ms": round(p50["container"] - p50["process"], 3),
        "req/s": round(rate["container"]),
        "req/s of process": round(rate["process"]),
        "of process %": round(100 * rate["container"] / rate["process"], 1),
        "failed": sum(each.failed for loads in seen.values() for each in loads),
    }


def _load(running: Platform, rung: str, connections: int, seconds: float) -> Load:
    return load(running.url, [f"/invoke/{rung}"], connections=connections, seconds=seconds, key=running.key)


def _idle(name: str, count: int) -> Row:
    settings = {"max_concurrent_functions": 2 * count, "warm_instance_ttl": 3600, "max_cells": CELLS}
    with platform(**_in_containers(name), **settings) as running:
        for number in range(count):
            running.deploy(f"held-{number}")
        running.stop_instances()
        return hold(running, f"idle containers, {name}", count, 5)


def _in_containers(name: str) -> dict[str, object]:
    return {"default_mode": "container", "container_runtime": name}
