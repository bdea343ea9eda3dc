"""A function that is deployed anew whenever its files change, with its log in sight."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import typer

from martlet.cli.deploy import configuration
from martlet.cli.failures import EXPECTED, explain
from martlet.cli.logs import log_line
from martlet.cli.output import complain, note
from martlet.cli.private import private_platform
from martlet.cli.watch import changes
from martlet.client import AsyncClient, ClientError

RETRY_INTERVAL = 0.5
"""Seconds until the log is asked for again, where there is none yet."""
FIRST_LINES = 100
"""Lines that may have come between the first deploy and the first time that the log is asked for."""


async def live(source: Path, port: int) -> None:
    """Serves a function on a private platform, as its files are now, until SIGINT, SIGTERM or SIGHUP.

    Args:
        source: the function's folder, or its one file.
        port: where the platform listens; 0 takes a free port.

    Raises:
        Invalid: there is nothing to deploy, or the manifest says nothing that can be at the start.
        ClientError: the platform does not start.
    """
    name, _ = configuration(source, {})
    work = asyncio.current_task()
    assert work is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    note("starting a platform")
    with suppress(asyncio.CancelledError):
        async with private_platform(port) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(_redeploy(client, name, source))
            tasks.create_task(_follow(client, name))
    note("stopped")


async def _redeploy(client: AsyncClient, name: str, source: Path) -> None:

    await _deploy(client, name, source)
    async for changed in changes(source):
        note(f"changed: {', '.join(changed)}")
        await _deploy(client, name, source)


async def _deploy(client: AsyncClient, name: str, source: Path) -> None:
    """Deploys, always under the first name; a fault is shown, and the next save may mend it."""
    try:
        _, config = configuration(source, {})
        function = await client.deploy(
            name, source, config, on_line=lambda line: note(f"  {line['message']}")
        )
    except EXPECTED as error:
        failure = explain(error)
        complain(failure.sentence, "it is deployed again when a file changes")
        return
    note(f"{name}@{function['latest']} serves at")
    typer.echo(f"{client.address.url}/invoke/{name}")
    note(
        f"Try: MARTLET_URL={client.address.url} MARTLET_KEY={client.address.key} martlet invoke {name} '{{}}'"
    )


async def _follow(client: AsyncClient, name: str) -> None:
    """Shows the function's log for ever; before the first deploy there is none."""
    tail = FIRST_LINES
    while True:
        try:
            async for line in client.follow_logs(name, tail=tail):
                tail = 0  # who follows anew, because the stream broke off, has shown what came before
                typer.echo(log_line(line))
        except ClientError:
            pass
        await asyncio.sleep(RETRY_INTERVAL)
