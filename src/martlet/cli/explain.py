"""``martlet explain``: why a function has as many instances as it has."""

from __future__ import annotations

from operator import itemgetter

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import moment
from martlet.cli.functions import Name
from martlet.cli.output import Json, show_fields, show_json, show_table


def explain(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Explain why a function has as many instances as it has: what was learned of its calls, and decided lately."""
    with connect(context) as client:
        found = client.scaling(name)
    if as_json:
        show_json(found)
        return
    limits = f"{found['min_instances']} to {found['max_instances']}"
    show_fields({"instances": f"{found['instances']} ({limits} are allowed)"})
    if division := found.get("division"):
        parts = (f"{node} {count} (at most)" for node, count in division["shares"].items())
        show_fields(
            {
                "machines": ", ".join(parts),
                "expected": f"{sum(division['wanted'].values())}: {division['why']}",
            }
        )
    show_fields({node["node"]: f"{node['instances']}: {node['why']}" for node in found["nodes"]})
    decisions = [decision for node in found["nodes"] for decision in node["decisions"]]
    if decisions:
        typer.echo()
        show_table(
            ("TIME", "NODE", "REVISION", "DECISION", "WHY"),
            (
                (
                    moment(each["time"]),
                    each["node"],
                    each["revision"],
                    f"{each['action']} {each['instances']}",
                    each["reason"],
                )
                for each in sorted(decisions, key=itemgetter("time"), reverse=True)
            ),
            prose="WHY",
        )
