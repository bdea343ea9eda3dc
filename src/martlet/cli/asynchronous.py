"""``martlet invocation`` and ``martlet dead-letters``: what became of asynchronous invocations."""

from __future__ import annotations

from typing import Annotated

import typer

from martlet.cli.connection import connect
from martlet.cli.exits import ExitCode
from martlet.cli.formats import moment
from martlet.cli.functions import Name
from martlet.cli.output import Json, note, show_fields, show_json, show_list

MOST = 1000

dead_letters = typer.Typer(
    help="Asynchronous invocations that were given up: list them, retry them, drop them.",
    no_args_is_help=True,
)


def invocation(
    context: typer.Context,
    invocation: Annotated[
        str, typer.Argument(metavar="ID", help="The invocation, as `martlet invoke --async` printed it.")
    ],
    as_json: Json = False,
) -> None:
    """Show an asynchronous invocation: how far it is, and its answer or error.

    The exit code is that of `martlet invoke` where it has failed.
    """
    with connect(context) as client:
        found = client.asynchronous(invocation)
    if as_json:
        show_json(found)
    else:
        answer, error = found["answer"] or {}, found["error"] or {}
        fields = {
            "id": found["id"],
            "function": found["target"],
            "state": found["state"],
            "accepted": moment(found["accepted"]),
            "ended": moment(found["ended"]),
            "attempts": found["attempts"],
            "status": answer.get("status"),
            "body": answer.get("body"),
            "error": error.get("detail"),
        }
        show_fields(fields)
    if found["state"] == "failed":
        raise typer.Exit(ExitCode.NOT_OK)


@dead_letters.command("list")
def list_dead_letters(
    context: typer.Context,
    name: Name,
    limit: Annotated[int, typer.Option(help="How many of the oldest to show.", min=1, max=MOST)] = 20,
    as_json: Json = False,
) -> None:
    """List the asynchronous invocations of a function that were given up, the oldest first."""
    with connect(context) as client:
        found = client.dead_letters(name, limit)
    columns = {
        "ID": lambda letter: letter["id"],
        "FUNCTION": lambda letter: letter["target"],
        "REQUEST": lambda letter: f"{letter['method']} {letter['path']}",
        "BYTES": lambda letter: letter["bytes"],
        "ACCEPTED": lambda letter: moment(letter["accepted"]),
        "DIED": lambda letter: moment(letter["died"]),
        "ATTEMPTS": lambda letter: letter["attempts"],
    }
    show_list(found, columns, as_json=as_json, empty=f"{name} has no dead letters.")


@dead_letters.command("retry")
def retry(
    context: typer.Context,
    name: Name,
    invocations: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="The invocations; all of the function by default."),
    ] = None,
) -> None:
    """Run asynchronous invocations that were given up again, as if they were new."""
    with connect(context) as client:
        chosen = invocations or [letter["id"] for letter in client.dead_letters(name, MOST)]
        for each in chosen:
            client.retry_dead_letter(name, each)
    note(f"{len(chosen)} of {name} are tried again.")


@dead_letters.command("drop")
def drop(
    context: typer.Context,
    name: Name,
    invocations: Annotated[list[str], typer.Argument(metavar="ID...", help="The invocations.")],
) -> None:
    """Delete asynchronous invocations that were given up."""
    with connect(context) as client:
        for each in invocations:
            client.drop_dead_letter(name, each)
    note(f"{len(invocations)} of {name} are deleted.")
