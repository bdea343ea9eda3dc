"""``martlet dev``: write a function and see what it does, in one terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dev(
    source: Annotated[
        Path, typer.Argument(metavar="PATH", help="The function: its folder, or its one file.")
    ] = Path("."),
    port: Annotated[int, typer.Option(help="The port of the private platform; 0 takes a free one.")] = 0,
) -> None:
    """Run a function on a private platform, deploy it anew whenever a file changes, and show its log.

    The platform uses temporary data. Ctrl-C stops it and leaves nothing behind.
    """
    import asyncio

    from martlet.cli.live import live

    asyncio.run(live(source, port))
