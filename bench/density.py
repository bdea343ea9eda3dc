"""How many idle instances a machine holds, what each costs, and how fast they start."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.platform import Platform, platform
from bench.row import Row, latencies

AT_ONCE = 16
NEWCOMERS = 50
RESTED_SECONDS = 40.0
"""After so long without a request instances have given back what they only looked at."""
SETTLED_SECONDS, LOOK_SECONDS, RISE = 180.0, 4.0, 2.0
"""How long memory may take to settle; how often to look, and the MiB that it may rise in between."""


def density(count: int) -> Iterator[Row]:
    """Starts ``count`` functions by one request each; then cold starts beside those that live and idle.

    What an instance costs is what the system's available memory falls by, divided by the instances: it counts page
    tables, sockets, cgroups and namespaces too.
    """
    with platform(max_concurrent_functions=2 * count, warm_instance_ttl=3600, max_cells=4) as running:
        for number in range(count + NEWCOMERS):
            running.deploy(f"held-{number}")
        running.stop_instances()
        row = hold(running, "idle instances", count, 3)
        yield row
        took = []
        for number in range(count, count + NEWCOMERS):
            time.sleep(0.25)
            took.append(running.first_response(f"/invoke/held-{number}"))
        yield latencies(f"cold start beside {row['count']} idle instances", took)


def hold(running: Platform, name: str, count: int, most_mib: int) -> Row:
    """Starts the functions ``held-0`` and on by a request each, and leaves them idle.

    Args:
        running: the platform.
        name: of the row.
        count: how many functions there are.
        most_mib: more than one takes, in MiB.

    Returns:
        The row of this name.
    """
    before = _settled_mib()
    _touch(count * most_mib)
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda number: running.first_response(f"/invoke/held-{number}"), range(count)))
    seconds = time.perf_counter() - began
    time.sleep(RESTED_SECONDS)
    held = len(running.client.instances())
    return {
        "server": name,
        "count": held,
        "started/s": round(count / seconds, 1),
        "MiB each": round((before - _settled_mib()) / held, 2),
    }


def _touch(mib: int) -> None:
    """Uses so many MiB, and gives them back.

    A virtual machine gets memory from its host when it first touches it, which takes several times what the kernel
    takes to hand it out, and is no part of a start.
    """
    mmap.mmap(-1, mib * 1024**2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()


def _settled_mib() -> float:
    """Returns the MiB that are available once they do not rise any more.

    Some kernels give back what has ended by and by, 15 MiB a second: it would pass for memory that nobody takes.
    """
    deadline, before = time.monotonic() + SETTLED_SECONDS, 0.0
    while (available := _available_mib()) > before + RISE and time.monotonic() < deadline:
        before = available
        time.sleep(LOOK_SECONDS)
    return available


def _available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not say how much memory is available")
