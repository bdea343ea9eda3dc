"""Writes what was measured: a table, a JSON file, a plot."""

from __future__ import annotations

import json
import platform as host
import subprocess
from pathlib import Path

from bench.row import Row

RESULTS = Path(__file__).parent / "results"


def facts() -> dict[str, object]:
    """Returns what machine and what source this is."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    return {"kernel": host.release(), "python": host.python_version(), "commit": commit}


def table(title: str, rows: list[Row]) -> str:
    """Returns rows as a Markdown table below a heading."""
    return f"### {title}\n\n{markdown(rows)}"


def markdown(rows: list[Row]) -> str:
    """Returns rows as a Markdown table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join([*lines, ""])


def write(results: dict[str, list[Row]]) -> None:
    """Writes ``bench/results/latest.json``, ``.md`` and ``.png``."""
    RESULTS.mkdir(exist_ok=True)
    document = {"facts": facts(), "results": results}
    (RESULTS / "latest.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "latest.md").write_text("\n".join(table(title, rows) for title, rows in results.items()))
    if "warm" in results:
        _plot(results["warm"])


def _plot(rows: list[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    chosen = [row for row in rows if row["body"] == "64 B" and row["connections"] == 32]
    figure, (rates, latencies) = pyplot.subplots(1, 2, figsize=(12, 0.6 * len(chosen) + 1.5), sharey=True)
    names = [str(row["server"]) for row in chosen][::-1]
    rates.barh(names, [row["req/s"] for row in chosen][::-1], color="#3b6ea5")
    rates.set_xlabel("requests/s, 32 connections")
    one = {row["server"]: row["p50 ms"] for row in rows if row["body"] == "64 B" and row["connections"] == 1}
    latencies.barh(names, [one[name] for name in names], color="#b5651d")
    latencies.set_xlabel("median latency, ms, 1 connection")
    figure.tight_layout()
    figure.savefig(RESULTS / "latest.png", dpi=120)
