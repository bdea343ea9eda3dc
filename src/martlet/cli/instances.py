"""``martlet instances``: what runs right now, and ending it."""

from __future__ import annotations

from typing import Annotated

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import age, mebibytes
from martlet.cli.output import Json, note, show_list

app = typer.Typer(help="List the live instances, or stop one.")


@app.callback(invoke_without_command=True)
def list_instances(context: typer.Context, as_json: Json = False) -> None:
    """List the live instances, or stop one."""
    if context.invoked_subcommand is not None:
        return
    with connect(context) as client:
        instances = client.instances()
    columns = {
        "ID": lambda instance: instance["id"],
        "FUNCTION": lambda instance: f"{instance['function']}@{instance['revision']}",
        "STATE": lambda instance: instance["state"],
        "NODE": lambda instance: instance["node"],
        "DRIVER": lambda instance: instance["driver"],
        "PID": lambda instance: instance["pid"],
        "REQUESTS": lambda instance: instance["requests"],
        "MEMORY": lambda instance: mebibytes(instance["memory_bytes"]),
        "STARTED": lambda instance: age(instance["created"]),
        "USED": lambda instance: age(instance["last_used"]),
    }
    show_list(
        instances, columns, as_json=as_json, empty="Nothing runs: instances start when functions are invoked."
    )


@app.command("stop")
def stop(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(metavar="ID", help="The instance, as `martlet instances` lists it.")
    ],
) -> None:
    """Stop an instance; another starts when its function is invoked again."""
    with connect(context) as client:
        client.stop_instance(instance)
    note(f"{instance} is stopped.")
