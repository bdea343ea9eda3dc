"""The table of metrics, from the families that the platform exposes."""

from __future__ import annotations

from martlet.telemetry.metrics import StatsCollector
from martlet.telemetry.stats import LaneStats
from scripts.docs import markdown
from scripts.docs.markdown import code, described


def table() -> str:
    """Returns the table of every metric."""
    rows = []
    for family in StatsCollector(LaneStats(), {}, True, {}, {}).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(map(code, getattr(family, "_labelnames", ())))
        rows.append((code(name), family.type, labels, described(family.documentation, name)))
    return markdown.table(("name", "type", "labels", "meaning"), rows)
