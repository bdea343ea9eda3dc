"""What a measurement returns: rows of plain numbers."""

from __future__ import annotations

from bench.load import percentile

Row = dict[str, object]


def latencies(name: str, took: list[float]) -> Row:
    """Returns the row of single times in ms."""
    return {
        "server": name,
        "count": len(took),
        "p50 ms": round(percentile(took, 0.5), 2),
        "p90 ms": round(percentile(took, 0.9), 2),
        "p99 ms": round(percentile(took, 0.99), 2),
    }


def figure(name: str, value: float, unit: str) -> Row:
    """Returns the row of a single figure, with three digits that say something."""
    return {"measured": name, "value": float(f"{value:.3g}"), "unit": unit}
