"""``martlet keys``: who may do what."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import moment, seconds
from martlet.cli.output import Json, note, show_json, show_list

app = typer.Typer(help="Make, list, rotate and revoke API keys.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `martlet keys list` shows it.")]


class ScopeName(StrEnum):
    """What a key may be allowed; the platform's own list, without loading it for every command."""

    INVOKE = "invoke"
    MANAGE = "manage"
    ADMIN = "admin"


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for, in words.")],
    scope: Annotated[
        list[ScopeName], typer.Option(help="What it may do; may be repeated.", show_default="invoke")
    ] = [ScopeName.INVOKE],  # noqa: B006 (never changed)
    function: Annotated[
        list[str] | None, typer.Option(help="A function it is limited to; may be repeated. All by default.")
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it stops working: 90s, 15m, 12h or 30d. Never by default."),
    ] = None,
    rate_limit: Annotated[str | None, typer.Option(help="Requests it may make (100/s).")] = None,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Exempt it from the limit per client address.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a key and print its secret, once: the platform keeps only a hash of it."""
    expires = None if expires_in is None else time.time() + seconds(expires_in, "--expires-in")
    with connect(context) as client:
        key = client.create_key(
            name, list(scope), functions=function, expires=expires, rate_limit=rate_limit, trusted=trusted
        )
    _show_secret(key, as_json)


@app.command("list")
def list_keys(context: typer.Context, as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    with connect(context) as client:
        keys = client.keys()
    columns = {
        "ID": lambda key: key["id"],
        "NAME": lambda key: key["name"],
        "SCOPES": lambda key: ", ".join(sorted(key["scopes"])),
        "FUNCTIONS": lambda key: "all" if key["functions"] is None else ", ".join(key["functions"]),
        "RATE": lambda key: key["rate_limit"],
        "CREATED": lambda key: moment(key["created"] or None),  # the well-known ones have no date
        "EXPIRES": lambda key: moment(key["expires"]) or "never",
    }
    show_list(keys, columns, as_json=as_json, empty="There are no keys: `martlet keys create` makes one.")


@app.command("rotate")
def rotate(
    context: typer.Context,
    key: Key,
    overlap: Annotated[
        str,
        typer.Option(metavar="TIME", help="How long the old secret still works: 0, 90s, 15m, 12h or 30d."),
    ] = "0",
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print it."""
    with connect(context) as client:
        rotated = client.rotate_key(key, seconds(overlap, "--overlap"))
    _show_secret(rotated, as_json)


@app.command("revoke")
def revoke(context: typer.Context, key: Key) -> None:
    """Make a key useless, now."""
    with connect(context) as client:
        client.revoke_key(key)
    note(f"{key} is revoked.")


def _show_secret(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(key)
        return
    note(f"Key {key['id']}; its secret is shown this once:")
    typer.echo(key["secret"])
