"""Commands about the platform as a whole: ``stats``, ``builds``, ``runtimes``, ``version``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from martlet.cli.connection import connect
from martlet.cli.formats import moment
from martlet.cli.output import Json, note, show_fields, show_json, show_list
from martlet.terminal import plain

builds = typer.Typer(help="List the latest builds, or show the log of one.")


def stats(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="A function; the whole platform by default.")] = None,
    as_json: Json = False,
) -> None:
    """Show counts, errors, latencies and instances, of the platform or of one function."""
    with connect(context) as client:
        found = client.stats(name)
    if as_json:
        show_json(found)
    else:
        show_fields(flattened({name: value for name, value in found.items() if name != "missing"}))


def flattened(document: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Returns nested tables as one, with dotted names: ``latency_ms.p50``."""
    flat: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


@builds.callback(invoke_without_command=True)
def list_builds(
    context: typer.Context,
    function: Annotated[str | None, typer.Option(help="Only those of this function.")] = None,
    as_json: Json = False,
) -> None:
    """List the latest builds, or show the log of one."""
    if context.invoked_subcommand is not None:
        return
    with connect(context) as client:
        found = client.builds(function)
    columns = {
        "ID": lambda build: build["id"],
        "FUNCTION": lambda build: build["function"],
        "STATE": lambda build: build["state"],
        "REVISION": lambda build: build["revision"],
        "STARTED": lambda build: moment(build["started"]),
        "ERROR": lambda build: build["error"],
    }
    show_list(found, columns, as_json=as_json, empty="There are no builds yet: `martlet deploy` makes one.")


@builds.command("cancel")
def cancel_build(
    context: typer.Context,
    build: Annotated[str, typer.Argument(metavar="ID", help="The build, as `martlet builds` lists it.")],
) -> None:
    """Cancel a build that is queued or under way."""
    with connect(context) as client:
        note(f"{client.cancel_build(build)['id']} is cancelled; what served before still does")


@builds.command("log")
def build_log(
    context: typer.Context,
    build: Annotated[str, typer.Argument(metavar="ID", help="The build, as `martlet builds` lists it.")],
) -> None:
    """Print the log of a build, and wait for its end."""
    with connect(context) as client:
        client.build_log(build, lambda line: typer.echo(plain(line["message"])))


def runtimes(context: typer.Context, as_json: Json = False) -> None:
    """List the runtimes that functions may name, and why there are no others."""
    with connect(context) as client:
        found = client.runtimes()
    columns = {
        "NAME": lambda runtime: runtime["name"],
        "TITLE": lambda runtime: runtime["title"],
        "VERSION": lambda runtime: runtime["version"],
        "RUNS": lambda runtime: "✓" if runtime["runs"] else "✗",
        "BUILDS": lambda runtime: "✓" if runtime["builds"] else "✗",
        "ALSO": lambda runtime: ", ".join(name for name in runtime["names"] if name != runtime["name"]),
    }
    show_list(found, columns, as_json=as_json, empty="There are no runtimes: `martlet doctor` says why.")
    if not as_json:
        for runtime in found:
            if runtime["missing"]:
                way = f"; to install it: {runtime['remedy']}" if runtime["remedy"] else ""
                note(f"{runtime['title']}: {runtime['missing']}{way}.")


def version() -> None:
    """Print the version."""
    from martlet import __version__

    typer.echo(f"martlet {__version__}")
