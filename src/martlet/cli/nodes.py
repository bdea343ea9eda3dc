"""``martlet nodes``: the machines that share the store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import age
from martlet.cli.output import Json, note, show_list

if TYPE_CHECKING:
    from martlet.client import Client

app = typer.Typer(help="List the nodes: the machines that share the store, and what each runs.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The node, as `martlet nodes` lists it.")]

LOOK = 0.5
"""Seconds between two looks at what a node still holds."""


@app.callback(invoke_without_command=True)
def list_nodes(context: typer.Context, as_json: Json = False) -> None:
    """List the nodes: the machines that share the store, and what each runs."""
    if context.invoked_subcommand is not None:
        return
    with connect(context) as client:
        found = client.nodes()
    columns = {
        "ID": lambda node: node["id"],
        "HOST": lambda node: node["host"],
        "ADDRESS": lambda node: node["address"],
        "ROLES": lambda node: ",".join(node["roles"]),
        "STATE": lambda node: node["state"],
        "LEADER": lambda node: "yes" if node["leader"] else "no",
        "STARTED": lambda node: age(node["started"]),
        "LANES": lambda node: (
            f"{sum(lane['state'] == 'ready' for lane in node['lanes'])}/{len(node['lanes'])}"
        ),
        "INSTANCES": lambda node: node["instances"],
        "CAPACITY": lambda node: node["capacity"],
        "CELLS": lambda node: node["cells"],
        "LOAD": lambda node: node["load"],
        "VERSION": lambda node: node["version"],
    }
    show_list(found, columns, as_json=as_json, empty="No node answers: they may be restarting.")


@app.command("drain")
def drain(
    context: typer.Context,
    node: Id,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when it holds no instance any more.")
    ] = True,
) -> None:
    """Let other machines have the work of a node, until it is resumed; what it runs is finished."""
    with connect(context) as client:
        client.drain_node(node)
        note(f"{node} is given no more work; `martlet nodes resume {node}` gives it some again.")
        while wait and _holds(client, node):
            time.sleep(LOOK)
    if wait:
        note(f"{node} holds no instance any more.")


@app.command("resume")
def resume(context: typer.Context, node: Id) -> None:
    """Let a node that was drained have work again."""
    with connect(context) as client:
        client.resume_node(node)
    note(f"{node} is given work again.")


def _holds(client: Client, node: str) -> bool:
    """Whether a node is alive and has instances."""
    return any(each["id"] == node and each["instances"] for each in client.nodes())
