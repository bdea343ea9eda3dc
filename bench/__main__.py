"""Runs the measurements and prints them: ``python -m bench [--quick] [NAME …]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench import report
from bench.cluster import cluster
from bench.cold import cold
from bench.containers import containers
from bench.density import density
from bench.many import many_functions
from bench.microvms import microvms
from bench.neighbours import neighbours
from bench.overhead import overhead
from bench.row import Row
from bench.runtimes import runtimes
from bench.start import start_and_memory
from bench.warm import warm


@dataclass(frozen=True)
class Scale:
    """How long to load, how many functions to deploy, how many instances to hold, and nodes to simulate."""

    seconds: float
    functions: int
    instances: int
    starts: int
    containers: int
    microvms: int
    deploys: int
    nodes: int


QUICK, FULL = Scale(2, 100, 200, 30, 50, 10, 20, 100), Scale(5, 1000, 2000, 100, 500, 100, 100, 1000)
MEASUREMENTS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "start": lambda _: start_and_memory(),
    "cold": lambda scale: cold(scale.starts),
    "warm": lambda scale: warm(scale.seconds),
    "overhead": lambda _: overhead(),
    "neighbours": lambda scale: neighbours(scale.seconds),
    "runtimes": lambda scale: runtimes(scale.seconds, scale.starts // 10),
    "many": lambda scale: many_functions(scale.seconds, scale.functions),
    "containers": lambda scale: containers(scale.seconds, scale.starts // 4, scale.containers),
    "microvms": lambda scale: microvms(scale.seconds, scale.starts // 4, scale.microvms),
    "cluster": lambda scale: cluster(scale.seconds, scale.deploys, scale.nodes, 10 * scale.functions),
    "density": lambda scale: density(scale.instances),
}


def main() -> None:
    """Measures what was asked for, all in one run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="\n".join(f"  {name:<12}{_summary(name)}" for name in MEASUREMENTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="short runs, for a look; not for SPECIFICATION.md"
    )
    parser.add_argument("names", nargs="*", help=f"{', '.join(MEASUREMENTS)}; all by default")
    chosen = parser.parse_args()
    scale = QUICK if chosen.quick else FULL
    results: dict[str, list[Row]] = {}
    for name in chosen.names or MEASUREMENTS:
        rows = []
        for row in MEASUREMENTS[name](scale):
            print(name, *(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
            rows.append(row)
        results[name] = rows
    report.write(results)
    print()
    for name, rows in results.items():
        print(report.table(name, rows))


def _summary(name: str) -> str:
    """Returns what a measurement is about: each has a module of its name."""
    said: str = sys.modules[f"bench.{name}"].__doc__ or ""
    return said.partition("\n")[0]


if __name__ == "__main__":
    main()
