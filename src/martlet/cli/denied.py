"""``martlet denied``: which system calls of a function the sandbox refuses, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from martlet.cli.exits import ExitCode
from martlet.cli.output import Json, complain, note, show_json, show_table

if TYPE_CHECKING:
    from martlet.cli.observation import Observation


def denied(
    source: Annotated[
        Path, typer.Argument(metavar="PATH", help="The function: its folder, or its one file.")
    ] = Path("."),
    body: Annotated[str | None, typer.Argument(help="The request body, in JSON.")] = None,
    method: Annotated[
        str | None, typer.Option("-X", "--method", help="The HTTP method; POST with a body, GET without.")
    ] = None,
    path: Annotated[str, typer.Option(help="The path below the function's root.")] = "/",
    handler: Annotated[str | None, typer.Option(help="What to run, as its language writes it.")] = None,
    dependencies: Annotated[
        Path | None,
        typer.Option(help="A folder with the packages that it needs, as `pip --target` makes it."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="The configuration file.", envvar="FAAS_CONFIG_FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a function once in a sandbox of its own, and show the system calls that were denied to it.

    It needs no platform, but a host on which one could run, and gets no way out to other machines. Calls that answer
    ENOSYS are no failure by themselves: libraries then take another way. What is refused for other reasons than its
    system call, as a file that is not there, is not shown.
    """
    import asyncio

    from martlet.cli.deploy import configuration
    from martlet.cli.observation import Request, observe
    from martlet.config import load_settings
    from martlet.drivers.driver import DriverError
    from martlet.model import FunctionConfig
    from martlet.validation import validated

    _, given = configuration(source, {} if handler is None else {"handler": handler})
    request = Request(method or ("GET" if body is None else "POST"), path, _parsed(body))
    run = observe(load_settings(config), source, dependencies, validated(FunctionConfig, given), request)
    try:
        observation = asyncio.run(run)
    except DriverError as error:
        complain(str(error), "`martlet doctor` shows what this host lacks")
        raise typer.Exit(ExitCode.FAILED) from None
    if as_json:
        show_json([asdict(denial) | {"times": times} for denial, times in observation.denials.items()])
    elif observation.denials:
        headings = ("CALL", "ARGUMENTS", "ANSWER", "TIMES", "WHY")
        show_table(headings, _rows(observation), prose="WHY")
    else:
        note("Nothing was denied.")
    if observation.failure is not None:
        complain(observation.failure)
        raise typer.Exit(ExitCode.FUNCTION_FAILED)
    note(f"\nThe function answered with status {observation.status}.")


def _rows(observation: Observation) -> Iterable[tuple[object, ...]]:
    for denial, times in observation.denials.most_common():
        yield denial.call, denial.arguments, denial.error, times, denial.reason


def _parsed(body: str | None) -> object:
    try:
        return None if body is None else json.loads(body)
    except ValueError as error:
        raise typer.BadParameter(f"it is not JSON: {error}", param_hint="BODY") from None
