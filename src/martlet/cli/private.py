"""A platform of one's own: on a free port, with data that vanishes, in development mode."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from martlet.client import ApiError, AsyncClient, ClientError, Unreachable
from martlet.client.address import DEVELOPMENT_KEY
from martlet.sandbox.lifeline import die_with_parent

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
LOOK_INTERVAL = 0.05


@asynccontextmanager
async def private_platform(port: int = 0) -> AsyncIterator[AsyncClient]:
    """Starts a platform and gives a client of it; stops it and removes its data at the end.

    Args:
        port: where it listens on 127.0.0.1; 0 takes a free port.

    Raises:
        ClientError: it does not start; the message ends with the last lines of its log.
    """
    with TemporaryDirectory(prefix="martlet-dev-") as folder:
        port = port or _free_port()
        log = Path(folder) / "platform.log"
        command = [sys.executable, "-m", "martlet.cli", "serve", "--dev", "--lanes", "1", "--port", str(port)]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--data",
                str(Path(folder) / "data"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for us: we tell the platform once nothing asks it for anything any more.
                process_group=0,
                # And where we are killed, it still stops as it should.
                preexec_fn=partial(die_with_parent, signal.SIGTERM),
            )
        try:
            async with AsyncClient(f"http://127.0.0.1:{port}", DEVELOPMENT_KEY) as client:
                await _ready(client, process, log)
                yield client
        finally:
            await _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _ready(client: AsyncClient, process: asyncio.subprocess.Process, log: Path) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT):
            while process.returncode is None:
                try:
                    await client.ready()
                    return
                except (Unreachable, ApiError):
                    await asyncio.sleep(LOOK_INTERVAL)
    raise _not_started(log)


def _not_started(log: Path) -> ClientError:
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    return ClientError(
        f"the platform did not start; `martlet doctor` may say why. Its log ends with:\n{last}"
    )


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()
