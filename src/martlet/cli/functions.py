"""Commands about deployed functions: ``list``, ``describe``, ``delete``, ``revisions``, ``rollback``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import age, moment
from martlet.cli.output import Json, note, show_fields, show_json, show_list

Name = Annotated[str, typer.Argument(metavar="NAME", help="The function.")]


def list_functions(context: typer.Context, as_json: Json = False) -> None:
    """List the functions."""
    with connect(context) as client:
        functions = client.functions()
    columns = {
        "NAME": lambda function: function["name"],
        "REVISION": lambda function: function["latest"],
        "STATE": lambda function: function["state"],
        "RUNTIME": lambda function: function["config"]["runtime"],
        "MODE": lambda function: function["config"]["execution_mode"],
        "MEMORY": lambda function: function["config"]["memory"],
        "UPDATED": lambda function: age(function["updated"]),
    }
    show_list(
        functions, columns, as_json=as_json, empty="There are no functions yet: `martlet init` makes one."
    )


def describe(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Show all about a function: its configuration, its aliases, and where it is invoked."""
    with connect(context) as client:
        function = client.function(name)
        aliases = client.aliases(name)
        url = f"{client.address.url}/invoke/{name}"
    if as_json:
        show_json({**function, "aliases": aliases, "url": url})
        return
    show_fields(
        {
            "name": function["name"],
            "revision": function["latest"],
            "state": function["state"],
            "url": url,
            "created": moment(function["created"]),
            "updated": moment(function["updated"]),
            **{f"alias {alias['name']}": weights(alias) for alias in aliases},
            **{key: _value(value) for key, value in function["config"].items()},
        }
    )


def delete(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a function, with its revisions, logs and history."""
    if not yes:
        typer.confirm(f"Delete {name} with all of its revisions?", abort=True)
    with connect(context) as client:
        client.delete(name)
    note(f"{name} is deleted.")


def revisions(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List the revisions of a function, newest first; `*` marks the one that serves."""
    with connect(context) as client:
        found = client.revisions(name)
    columns = {
        "REVISION": lambda revision: f"{revision['number']}{'*' if revision['serving'] else ''}",
        "CODE": lambda revision: revision["code"][:12],
        "RUNTIME": lambda revision: revision["config"]["runtime"],
        "CREATED": lambda revision: moment(revision["created"]),
    }
    show_list(found, columns, as_json=as_json, empty=f"{name} has no revisions.")


def rollback(
    context: typer.Context,
    name: Name,
    revision: Annotated[
        int | None, typer.Argument(help="The revision to serve; the one before what serves now, by default.")
    ] = None,
) -> None:
    """Make an earlier revision of a function serve again."""
    with connect(context) as client:
        if revision is None:
            revision = _one_before(name, client.revisions(name))
        client.rollback(name, revision)
    note(f"{name}@{revision} serves now.")


def weights(alias: dict[str, dict[str, int]]) -> str:
    """Writes the weights of an alias: ``3=90, 4=10``."""
    return ", ".join(f"{revision}={weight}" for revision, weight in alias["weights"].items())


def _one_before(name: str, revisions: list[dict[str, Any]]) -> int:
    serving = next(revision["number"] for revision in revisions if revision["serving"])
    earlier = [revision["number"] for revision in revisions if revision["number"] < serving]
    if not earlier:
        raise typer.BadParameter(f"{name} has no revision before {serving}", param_hint="REVISION")
    before: int = max(earlier)
    return before


def _value(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key}={member}" for key, member in value.items()) or None
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return value
