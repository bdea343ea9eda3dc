"""How long the platform takes to be ready, and what memory it holds."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.load import memory_mib
from bench.platform import platform
from bench.row import Row


def start_and_memory() -> Iterator[Row]:
    """The idle platform with its ready cells, and what each idle instance adds (shared pages divided)."""
    began = time.perf_counter()
    with platform(min_cells=4, max_cells=4) as running:
        yield {"server": "platform ready", "ms": round((time.perf_counter() - began) * 1e3)}
        yield {"server": "memory of the idle platform", "MiB": round(memory_mib(running.pids()), 1)}
        running.deploy("first")
        before = memory_mib(running.pids())
        for number in range(100):
            running.deploy(f"held-{number}")
        each = (memory_mib(running.pids()) - before) / 100
        yield {"server": "memory of an idle instance", "MiB": round(each, 2)}
