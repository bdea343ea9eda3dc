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
    """Check all that Martlet uses of this host. The exit code is 0 when functions can run isolated."""
    from martlet.cli.checks import check_host
    from martlet.config import load_settings

    checks = list(check_host(load_settings(config)))
    if as_json:
        show_json([asdict(check) for check in checks])
    else:
        show_table(("", "FEATURE", "FOUND"), (("✓" if c.held else "✗", c.feature, c.found) for c in checks))
        for check in checks:
            if not check.held:
                note(f"\n{check.feature}: {check.meaning}.\n  {check.remedy[:1].upper()}{check.remedy[1:]}.")
    if any(check.needed and not check.held for check in checks):
        note("\nFunctions cannot run isolated here.")
        raise typer.Exit(ExitCode.FAILED)
