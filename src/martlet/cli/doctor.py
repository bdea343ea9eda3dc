"""``martlet doctor``: what this host has, what it lacks, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from martlet.cli.exits import ExitCode
from martlet.cli.output import Json, note, show_json, show_table


def doctor(
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="The configuration file.", envvar="FAAS_CONFIG_FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check what functions are isolated by, and all else that Martlet uses of this host.

    The exit code is 0 when functions can run isolated.
    """
    from martlet.cli.checks import check_host, check_runtimes, check_sandbox
    from martlet.config import load_settings
    from martlet.drivers.driver import explain

    settings = load_settings(config)
    guarantees, checks = check_sandbox(settings), list(check_host(settings))
    runtimes = list(check_runtimes(settings))
    if as_json:
        show_json(
            {
                "sandbox": [asdict(each) for each in guarantees],
                "host": [asdict(each) for each in checks],
                "runtimes": [asdict(each) for each in runtimes],
            }
        )
    else:
        show_table(
            ("PROCESS SANDBOX", "STATE", "FUNCTIONS ARE PROMISED"),
            ((each.name, each.state, each.promise) for each in guarantees),
        )
        typer.echo()
        for heading, found in (("FEATURE", checks), ("RUNTIME", runtimes)):
            show_table(("", heading, "FOUND"), (("✓" if c.held else "✗", c.feature, c.found) for c in found))
            typer.echo()
        for sentence in explain(guarantees):
            note(f"\n{sentence}")
        for check in (*checks, *runtimes):
            if not check.held:
                note(f"\n{check.feature}: {check.meaning}.\n  {check.remedy[:1].upper()}{check.remedy[1:]}.")
    if any(each.broken for each in guarantees) or any(each.needed and not each.held for each in checks):
        note("\nFunctions cannot run isolated here.")
        raise typer.Exit(ExitCode.FAILED)
