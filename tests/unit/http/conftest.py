"""A real server on a free port, with an application that the test chooses."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from martlet.errors import MartletError
from martlet.http.exchange import Exchange
from martlet.http.server import Server, ServerLimits

LIMITS = ServerLimits(
    max_body=1024 * 1024,
    max_header=8192,
    header_timeout=60,
    body_timeout=60,
    keep_alive_timeout=60,
    max_connections=100,
)


class Application:
    """Hands each request to a function."""

    def __init__(self, handle: Callable[[Exchange], None]) -> None:
        self.handle = handle

    def max_body(self, exchange: Exchange) -> int:
        return LIMITS.max_body

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        exchange.request_id = "refused"
        exchange.problem(error)


@dataclass
class Client:
    """A raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Reads one response with content-length or chunks, or to the end of the connection."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        status = int(head[0].split(" ")[1])
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return status, headers, body
        return status, headers, await self.reader.read()

    async def closed(self) -> bool:
        """Waits for the server to close."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True


async def connections_closed() -> None:
    """Waits until the event loop watches nothing but its own waker: what is closed over TLS takes a few turns.

    So does what is being opened, and is not watched in some of them. A connection that the loop's end finds open is a
    warning, in whatever test is running when the garbage is collected.
    """
    watched = asyncio.get_running_loop()._selector  # there is no public way to ask
    quiet = 0
    async with asyncio.timeout(60):
        while quiet < 10:
            await asyncio.sleep(0.001)
            quiet = quiet + 1 if len(watched.get_map()) == 1 else 0


@pytest.fixture
def serving():
    """Runs a server in a context: ``async with serving(handle) as connect: client = await connect()``."""

    @asynccontextmanager
    async def run(handle: Callable[[Exchange], None], **limits: float) -> AsyncIterator[Callable[[], object]]:
        server = Server(Application(handle), replace(LIMITS, **limits))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        loop = asyncio.get_running_loop()
        tcp = await loop.create_server(server, sock=listener)
        watch = loop.create_task(server.watch_clients(0.05))
        clients: list[Client] = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_connection(*listener.getsockname())))
            return clients[-1]

        try:
            yield connect
        finally:
            watch.cancel()
            for client in clients:
                client.writer.close()
            tcp.close()
            await server.drain(0)
            await asyncio.sleep(0)

    return run
