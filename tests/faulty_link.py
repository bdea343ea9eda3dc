"""A TCP relay that a test puts between a client and a server, on loopback by default, to spoil what goes over it."""

import asyncio
import socket
import threading
from contextlib import suppress

CHUNK = 64 * 1024


class FaultyLink:
    """Relays ``port`` (its own) to the server's. Attributes may be set at any time, from any thread.

    Attributes:
        delay: seconds each chunk of at most 64 KiB waits before it is passed on.
        silent: bytes are taken and none are passed on, either way.
        silent_after: once this many bytes more have been passed on, both ways together, it is silent.
        breaks_after: the connection that passes this many bytes more, both ways together, is cut; once.
        breaks: which way those bytes go: "up" to the server, "down" to the client, or "any".
        passed: bytes passed on so far, both ways together.
        connections: how many have been made.
    """

    def __init__(self, server_port: int, host: str = "127.0.0.1", server: str = "127.0.0.1") -> None:
        self.delay = 0.0
        self.silent = False
        self.silent_after: int | None = None
        self.breaks_after: int | None = None
        self.breaks = "any"
        self.passed = 0
        self.connections = 0
        self.server_port = server_port
        self._server_host = server
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-link", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._relay, host, 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __str__(self) -> str:
        """Says what it has done and whether it still can; for who looks at a test that failed."""
        (listener,) = self._server.sockets
        try:
            listens: object = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            listens = error
        return (
            f"link on port {self.port}: {self.connections} connections, {self.passed} bytes passed; "
            f"descriptor {listener.fileno()} listens: {listens}, thread alive: {self._thread.is_alive()}"
        )

    def cut(self) -> None:
        """Cuts every connection there is now."""
        self._call(self._cut())

    def close(self) -> None:
        """Cuts every connection and takes no more."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the server is not there, or this ends: asyncio would complain of it
        finally:
            self._writers.remove(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._server_host, self.server_port)
        self._writers.add(far_writer)
        try:
            await asyncio.gather(
                self._pass("up", reader, far_writer, writer),
                self._pass("down", far_reader, writer, far_writer),
            )
        finally:
            self._writers.remove(far_writer)
            far_writer.transport.abort()

    async def _pass(
        self,
        way: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.silent_after is not None:
                    self.silent_after -= len(data)
                    if self.silent_after < 0:
                        self.silent, self.silent_after = True, None
                if self.silent:
                    continue
                if self.breaks_after is not None and self.breaks in ("any", way):
                    self.breaks_after -= len(data)
                    if self.breaks_after <= 0:
                        self.breaks_after = None
                        break
                writer.write(data)
                self.passed += len(data)
                await writer.drain()
        writer.transport.abort()
        other.transport.abort()
