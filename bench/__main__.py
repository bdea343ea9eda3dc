"""Runs the measurements and prints them: ``python -m bench [--quick] [NAME …]``."""

from __future__ import annotations

import argparse

from bench import measure, report
from bench.measure import Row


def main() -> None:
    """Measures what was asked for, all in one run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="short runs, for a look; not for SPECIFICATION.md"
    )
    parser.add_argument("names", nargs="*", help="warm, many, cold, start; all by default")
    chosen = parser.parse_args()
    seconds, functions = (2, 100) if chosen.quick else (5, 1000)
    measurements = {
        "start": lambda: measure.start_and_memory(),
        "cold": lambda: measure.cold(100),
        "warm": lambda: measure.warm(seconds),
        "many": lambda: measure.many_functions(seconds, functions),
    }
    results: dict[str, list[Row]] = {}
    for name in chosen.names or measurements:
        rows = []
        for row in measurements[name]():
            print(name, *(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)
            rows.append(row)
        results[name] = rows
    report.write(results)
    print()
    for name, rows in results.items():
        print(report.table(name, rows))


if __name__ == "__main__":
    main()
