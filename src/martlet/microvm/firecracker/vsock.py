"""The host's side of the guest's vsock, which Firecracker brings to unix sockets.

A connection to a port of the guest is one to the socket of the device, after a line each way::

    CONNECT 1024
    OK 1073741824

where the second number is the host's own port. Firecracker closes the connection instead where nobody listens in the
guest. A connection from the guest to port 1024 of the host arrives at the socket of the device with ``_1024`` appended.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM
from socket import socket as socket_of
from typing import TypeVar

from martlet.microvm.firecracker.errors import BadAnswer, NoAnswer
from martlet.microvm.firecracker.sockets import address_of

_Protocol = TypeVar("_Protocol", bound=asyncio.BaseProtocol)
_GREETING = re.compile(rb"OK [0-9]{1,10}\n")
_LONGEST_GREETING = 14
_MAX_PORT = 2**32 - 2


async def connect(
    path: Path, port: int, factory: Callable[[], _Protocol], *, timeout: float
) -> tuple[asyncio.Transport, _Protocol]:
    """Connects to a port of the guest; what follows is as `asyncio.loop.create_unix_connection` has it.

    Args:
        path: the socket of the device.
        port: where the guest listens.
        factory: makes the protocol of the connection.
        timeout: seconds until the guest must have accepted.

    Raises:
        NoAnswer: there is no socket, nobody listens in the guest, or it does not accept in time.
        BadAnswer: this is no vsock of Firecracker's.
    """
    _check(port)
    loop = asyncio.get_running_loop()
    connection = socket_of(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(timeout):
            with address_of(path) as address:
                await loop.sock_connect(connection, address)
            await loop.sock_sendall(connection, b"CONNECT %d\n" % port)
            greeting = bytearray()
            # Byte by byte, because all that follows the line is the protocol's.
            while not greeting.endswith(b"\n") and len(greeting) < _LONGEST_GREETING:
                byte = await loop.sock_recv(connection, 1)
                if not byte:
                    raise NoAnswer(
                        f"nobody listens at port {port} of the guest behind {path}. What to do: wait until its agent "
                        "has started, or read what the guest has printed"
                    )
                greeting += byte
            if not _GREETING.fullmatch(greeting):
                raise BadAnswer(
                    f"{path} answered {bytes(greeting)!r} in place of OK and a port. What to do: give the uds_path of "
                    "the microVM's vsock, not another socket"
                )
            transport, protocol = await loop.create_unix_connection(factory, sock=connection)
    except TimeoutError:
        connection.close()
        raise NoAnswer(
            f"the guest behind {path} did not accept at port {port} within {timeout:g} s. What to do: see whether "
            "it is paused or hangs"
        ) from None
    except OSError as error:
        connection.close()
        raise NoAnswer(
            f"the vsock {path} does not take connections: {error}. What to do: see whether Firecracker runs and its "
            "guest was started"
        ) from error
    except BaseException:
        connection.close()
        raise
    return transport, protocol


async def listen(
    path: Path, port: int, factory: Callable[[], asyncio.BaseProtocol]
) -> asyncio.AbstractServer:
    """Takes connections that the guest makes to a port of the host; a socket that a former life left is replaced.

    Args:
        path: the socket of the device, whether or not it is there already.
        port: of the host.
        factory: makes the protocol of each connection.

    Raises:
        OSError: the socket cannot be made.
    """
    at = from_guest(path, port)
    at.unlink(missing_ok=True)
    return await asyncio.get_running_loop().create_unix_server(factory, str(at))


def from_guest(path: Path, port: int) -> Path:
    """Returns where connections of the guest to a port of the host arrive. It must be there for Firecracker's user."""
    _check(port)
    return path.with_name(f"{path.name}_{port}")


def _check(port: int) -> None:
    if not 0 <= port <= _MAX_PORT:
        raise ValueError(f"{port} is not a port: use one from 0 to {_MAX_PORT}")
