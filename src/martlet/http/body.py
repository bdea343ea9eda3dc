"""A request body as a whole, for those who need all of it."""

from __future__ import annotations

import asyncio

from martlet.http.exchange import Exchange


async def read_body(exchange: Exchange) -> bytes:
    """Returns the whole body of a request; the server has bounded it."""
    reader = _BodyReader()
    reader.body(exchange.take_body(reader))
    if exchange.complete:
        reader.body_end()
    await reader.done.wait()
    return bytes(reader.gathered)


class _BodyReader:
    """A sink that gathers."""

    def __init__(self) -> None:
        self.gathered = bytearray()
        self.done = asyncio.Event()

    def body(self, data: bytes) -> None:
        self.gathered += data

    def body_end(self) -> None:
        self.done.set()

    def client_gone(self) -> None:
        self.done.set()

    def pause_response(self) -> None:
        """What is answered here is small, or the client's own business."""

    def resume_response(self) -> None:
        """See `pause_response`."""
