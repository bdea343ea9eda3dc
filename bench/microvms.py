"""What a function costs in a microVM: cold starts beside a boot of the same guest, warm requests and idle instances."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median

from bench.containers import CELLS, first_responses
from bench.density import hold
from bench.load import load
from bench.platform import Platform, platform
from bench.row import Row, latencies
from martlet.drivers.microvm import describe, what_is_missing
from martlet.microvm.booting import booted
from martlet.microvm.kernel import debian_kernel
from martlet.microvm.machine import ROOT_FILE
from martlet.microvm.store import Store
from martlet.microvm.templates import Templates, monitor
from martlet.runtimes import Catalogue

BOOTS = 5
RUNGS = ("process", "microvm")
ROUNDS = 3
PAUSE = 3.0
"""Seconds after which a clone that is ready has practised, as it does while it idles."""
WARM_UP = 1.0


def microvms(seconds: float, starts: int, instances: int) -> Iterator[Row]:
    """Measures functions in Python, all in one run; what guests are made of is downloaded first.

    Args:
        seconds: of load, for each figure.
        starts: cold starts of each kind.
        instances: machines to hold at once.
    """
    missing = what_is_missing()
    if missing is not None:
        yield {"server": "microVMs", "missing": f"{missing.why}: {missing.remedy}"}
        return
    with tempfile.TemporaryDirectory() as kept:
        began = time.perf_counter()
        templates = Templates(Path(kept), print)
        template = templates.of(Catalogue.load().resolve("python"), describe)
        yield {
            "server": "the first template, with kernel and root",
            "s": round(time.perf_counter() - began, 1),
        }
        accelerated = templates.accelerated()
        name = "under KVM" if accelerated else "emulated"
        yield latencies(
            f"cold boot of the same guest, {name}",
            [_boot_ms(Path(kept), template, accelerated=accelerated) for _ in range(BOOTS)],
        )
        for cells in (0, CELLS):
            with platform(**_in_microvms(kept, cells)) as running:
                row = f"cold start, microVM, {name}, {'with' if cells else 'without'} a ready cell"
                yield latencies(row, first_responses(running, starts, cells, PAUSE))
        with platform(**_in_microvms(kept, CELLS)) as running:
            yield _warm(running, seconds)
        with platform(
            **_in_microvms(kept, CELLS), max_concurrent_functions=2 * instances, warm_instance_ttl=3600
        ) as running:
            for number in range(instances):
                running.deploy(f"held-{number}")
            running.stop_instances()
            yield hold(running, f"idle microVMs, {name}", instances, 20)


def _boot_ms(kept: Path, template: Path, *, accelerated: bool) -> float:
    """Returns the ms from the start of a monitor until the agent of the guest takes code."""
    kernel = debian_kernel(Store(kept, print), print)
    with tempfile.TemporaryDirectory(dir=kept) as work:
        began = time.perf_counter()
        with booted(monitor(), kernel, template / ROOT_FILE, Path(work), None, accelerated=accelerated):
            return (time.perf_counter() - began) * 1e3


def _warm(running: Platform, seconds: float) -> Row:
    """One function on both rungs, loaded in turn by one connection, so that what else the machine does meets both."""
    for rung in RUNGS:
        running.deploy(rung, execution_mode=rung)
        _p50(running, rung, WARM_UP)
    seen: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    for _, rung in product(range(ROUNDS), RUNGS):
        seen[rung].append(_p50(running, rung, seconds))
    p50 = {rung: median(seen[rung]) for rung in RUNGS}
    return {
        "server": "warm, microVM",
        "p50 ms": round(p50["microvm"], 3),
        "p50 of process ms": round(p50["process"], 3),
        "added ms": round(p50["microvm"] - p50["process"], 3),
    }


def _p50(running: Platform, rung: str, seconds: float) -> float:
    answered = load(running.url, [f"/invoke/{rung}"], connections=1, seconds=seconds, key=running.key)
    if answered.failed:
        raise RuntimeError(f"{answered.failed} requests failed ({rung})")
    return answered.p50


def _in_microvms(kept: str, cells: int) -> dict[str, object]:
    return {"default_mode": "microvm", "microvm_path": kept, "min_cells": cells, "max_cells": cells}
