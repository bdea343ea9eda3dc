"""What many deployed functions cost one of them, and what a deploy takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.platform import platform
from bench.row import Row, latencies
from bench.warm import of_platform

ROUNDS = 3


def many_functions(seconds: float, count: int) -> Iterator[Row]:
    """Throughput of one function on a platform that has one, and on one that has ``count``.

    Both run at once and are loaded in turn, so that what else the machine does meets both.
    """
    with ExitStack() as stack:
        single, crowded = stack.enter_context(platform()), stack.enter_context(platform())
        single.deploy("hello")
        crowded.deploy("hello")
        took = []
        for number in range(1, count):
            began = time.perf_counter()
            crowded.deploy(f"hello-{number}")
            took.append((time.perf_counter() - began) * 1e3)
        yield latencies("deploy of inline code", took)
        for _ in range(ROUNDS):
            yield of_platform("Martlet, 1 function", single, 32, "64 B", seconds)
            yield of_platform(f"Martlet, {count} functions", crowded, 32, "64 B", seconds)
