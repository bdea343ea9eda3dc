"""``martlet alias``: names that point at revisions, with weights."""

from __future__ import annotations

from typing import Annotated

import typer

from martlet.cli.connection import connect
from martlet.cli.functions import Name, weights
from martlet.cli.output import Json, note, show_list

app = typer.Typer(help="Point names at revisions: for canaries, and for going back.", no_args_is_help=True)

AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")]


@app.command("set")
def set_alias(
    context: typer.Context,
    name: Name,
    alias: AliasName,
    shares: Annotated[
        list[str],
        typer.Argument(
            metavar="REVISION[=PERCENT]...",
            help="The revisions and their shares, 100 together: 3, or 3=90 4=10.",
        ),
    ],
) -> None:
    """Point an alias at one revision, or at several with their shares of the requests."""
    with connect(context) as client:
        client.set_alias(name, alias, dict(map(_share, shares)))
    note(f"{name}@{alias} points at {', '.join(shares)}.")


@app.command("list")
def list_aliases(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """List the aliases of a function."""
    with connect(context) as client:
        aliases = client.aliases(name)
    columns = {"ALIAS": lambda alias: alias["name"], "REVISIONS": weights}
    show_list(aliases, columns, as_json=as_json, empty=f"{name} has no aliases but latest.")


@app.command("delete")
def delete_alias(context: typer.Context, name: Name, alias: AliasName) -> None:
    """Delete an alias; the revisions stay."""
    with connect(context) as client:
        client.delete_alias(name, alias)
    note(f"{name}@{alias} is deleted.")


def _share(given: str) -> tuple[int, int]:
    revision, _, percent = given.partition("=")
    if not revision.isdigit() or not (percent or "100").isdigit():
        raise typer.BadParameter(f"{given!r} is not REVISION or REVISION=PERCENT", param_hint="REVISION")
    return int(revision), int(percent or 100)
