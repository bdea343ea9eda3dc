"""Connections to unix sockets whose owner may be slow to take them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from socket import AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM, socket

LOOK = 0.01
"""Seconds between two tries while as many connections wait as may. The kernel does not say when fewer do."""


async def connected(path: str | Path) -> socket:
    """Connects to a unix stream socket, and waits where too many others wait to be taken: the caller says how long.

    Returns:
        The connection, which does not block.

    Raises:
        OSError: there is nobody who listens.
    """
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK)
    try:
        while True:
            try:
                connection.connect(str(path))
            except BlockingIOError:
                await asyncio.sleep(LOOK)
            else:
                return connection
    except BaseException:
        connection.close()
        raise
