"""``martlet logs`` and ``martlet invocations``: what functions printed, and how their runs went."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import clock, milliseconds, moment
from martlet.cli.functions import Name
from martlet.cli.output import Json, show_list
from martlet.terminal import plain

COLORS = {"stderr": "red", "warning": "yellow", "error": "red", "critical": "red"}


def logs(
    context: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Wait for more, until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(help="How many of the latest lines to show.", min=0)] = 100,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what this request printed (its x-request-id).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, for programs.")
    ] = False,
) -> None:
    """Show what a function printed and logged."""
    with connect(context) as client:
        read = client.follow_logs if follow else client.logs
        for line in read(name, tail, request):
            typer.echo(json.dumps(line, ensure_ascii=False) if as_json else log_line(line))


def log_line(line: dict[str, Any]) -> str:
    """Writes a line of a function's log for people."""
    origin = f"{clock(line['time'])} {line['function']}@{line['revision']} {line['request_id'] or '-'}"
    stream, message = line["stream"], plain(line["message"])
    by = "platform " if line.get("source") == "platform" else ""  # an older platform does not say
    text = message if stream == "stdout" else f"{by}{stream}: {message}"
    return f"{typer.style(origin, dim=True)} {typer.style(text, fg=COLORS.get(stream))}"


def invocations(
    context: typer.Context,
    name: Name,
    limit: Annotated[int, typer.Option(help="How many of the latest to show.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List the latest invocations of a function, newest first."""
    with connect(context) as client:
        found = client.invocations(name, limit=limit)
    columns = {
        "ID": lambda run: run["id"],
        "STARTED": lambda run: moment(run["started"]),
        "REVISION": lambda run: run["revision"],
        "STATUS": lambda run: run["status"],
        "START": lambda run: "cold" if run["cold"] else "warm",
        "QUEUE": lambda run: milliseconds(run["queue_ms"]),
        "RUN": lambda run: milliseconds(run["run_ms"]),
        "ERROR": lambda run: run["error"],
    }
    show_list(found, columns, as_json=as_json, empty=f"{name} has not been invoked lately.")
