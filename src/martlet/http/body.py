"""What those who answer a request themselves need: its body as a whole, and word of a client that left."""

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


async def client_left(exchange: Exchange) -> None:
    """Returns when the client has closed its connection; for long responses, after the body has been read."""
    sink = _BodyReader()
    exchange.sink = sink
    if not exchange.gone:
        await sink.done.wait()


class _BodyReader:
    """A sink that gathers; ``done`` when nothing more comes."""

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
