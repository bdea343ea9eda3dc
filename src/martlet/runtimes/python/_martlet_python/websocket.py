"""WebSocket connections of an ASGI application."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from typing import TYPE_CHECKING, Any

from .failures import Failure, answer
from .frames import (
    Close,
    Decoder,
    FrameError,
    Message,
    Opcode,
    accept_key,
    encode,
    encode_close,
    parse_close,
    text,
)
from .http1 import Disconnected, Head, header_block, status_line

if TYPE_CHECKING:
    from .asgi import Event, Exchange
    from .evented import Channel

_ENOUGH_MESSAGES = 16
"""Messages received and not yet taken by the application from which on no more are read."""

_CLOSE_SECONDS = 5.0
_DENIAL = "websocket.http.response."


def wants_websocket(head: Head) -> bool:
    """Whether a request asks for the connection to become a WebSocket."""
    return head.method == "GET" and head.fields.get("upgrade", "").lower() == "websocket"


class Session:
    """The two callables of one WebSocket, and the protocol that its connection speaks once it is accepted."""

    def __init__(self, head: Head, channel: Channel, refusal: Exchange, max_message: int) -> None:
        self._head = head
        self._channel = channel
        self._refusal = refusal
        self._decoder = Decoder(max_message)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._events.put_nowait({"type": "websocket.connect"})
        self._accepted = False
        self._over = False  # nothing more may be sent
        self._told = False  # the application knows that it is over
        self._finished = asyncio.Event()  # nothing more will be received

    @property
    def scope(self) -> dict[str, Any]:
        """The members of the scope that differ from a plain request's."""
        fields = self._head.fields
        protocols = fields.get("sec-websocket-protocol", "")
        return {
            "type": "websocket",
            "scheme": "wss" if fields.get("x-forwarded-proto") == "https" else "ws",
            "subprotocols": [name.strip() for name in protocols.split(",") if name.strip()],
            "extensions": {"websocket.http.response": {}},
        }

    async def check(self) -> bool:
        """Whether the request is a proper handshake; answers it when it is not."""
        fields = self._head.fields
        if fields.get("sec-websocket-version") != "13":
            await self._refuse(426, [(b"sec-websocket-version", b"13")])
            return False
        try:
            proper = len(base64.b64decode(fields.get("sec-websocket-key", ""), validate=True)) == 16
        except binascii.Error:
            proper = False
        if not proper:
            await self._refuse(400, [])
        return proper

    # -- for the application

    async def receive(self) -> Event:
        """Gives the application what happened next."""
        event = await self._events.get()
        if self._accepted and self._events.qsize() < _ENOUGH_MESSAGES:
            self._channel.transport.resume_reading()
        return event

    async def send(self, event: Event) -> None:
        """Takes what the application wants to happen next.

        Raises:
            RuntimeError: the event may not come now.
            Disconnected: an OSError, as ASGI has it: the client left.
        """
        kind = event["type"]
        if self._over:
            raise Disconnected
        if kind == "websocket.send" and self._accepted:
            await self._channel.send(_frame(event))
        elif kind == "websocket.close" and self._accepted:
            await self.close(event.get("code", Close.NORMAL), event.get("reason") or "")
        elif kind == "websocket.accept" and not self._refusal.framing.ready:
            await self._accept(event.get("subprotocol"), event.get("headers", ()))
        elif kind == "websocket.close" and not self._refusal.framing.ready:
            await self._refuse(403, [])
        elif kind.startswith(_DENIAL) and not self._accepted:
            await self._refusal.send(event | {"type": kind.removeprefix("websocket.")})
        else:
            raise RuntimeError(f"the application sent {kind!r} at a moment when it may not")

    async def close(self, code: int = Close.NORMAL, reason: str = "") -> None:
        """Closes the connection, unless it is closed, or refuses it, unless it was answered."""
        if self._accepted and not self._over:
            self._over = True
            await self._channel.send(encode_close(code, reason))
        elif not self._accepted and not self._refusal.framing.ready:
            await self._refuse(403, [])

    async def settle(self) -> None:
        """Gives the client time to answer the close before the connection is cut."""
        if self._accepted:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finished.wait(), _CLOSE_SECONDS)

    async def fail(self, error: BaseException) -> None:
        """Logs what the application raised, and tells the client that there was an error."""
        if self._accepted or self._refusal.framing.started:
            Failure.of(error).log()
            await self.close(Close.INTERNAL_ERROR)
        else:
            await self._channel.send(answer(error, self._head))

    # -- for the connection

    def data_received(self, data: bytes) -> None:
        """Reads frames: answers pings and closes, queues messages."""
        self._decoder.feed(data)
        if not self._accepted:  # it is too early for frames
            self._channel.transport.pause_reading()
            return
        try:
            while not self._finished.is_set() and (message := self._decoder.next()) is not None:
                self._take(message)
        except FrameError as error:
            self._end_with(error.code, str(error), encode_close(error.code, str(error)))
            self._finished.set()
        if self._events.qsize() >= _ENOUGH_MESSAGES and not self._over:
            self._channel.transport.pause_reading()

    def connection_lost(self) -> None:
        """The client is gone, perhaps without a word."""
        self._over = True
        self._tell(Close.ABNORMAL, "")
        self._finished.set()

    def end(self) -> None:
        """The process is about to end."""
        self._end_with(Close.SERVICE_RESTART, "", encode_close(Close.SERVICE_RESTART))

    def _take(self, message: Message) -> None:
        match message.opcode:
            case Opcode.CLOSE:
                code, reason = parse_close(message.payload)
                self._end_with(code, reason, encode(Opcode.CLOSE, message.payload[:2]))
                self._finished.set()
            case _ if self._over:
                pass
            case Opcode.TEXT:
                self._events.put_nowait({"type": "websocket.receive", "text": text(message.payload)})
            case Opcode.BINARY:
                self._events.put_nowait({"type": "websocket.receive", "bytes": message.payload})
            case Opcode.PING:
                self._channel.transport.write(encode(Opcode.PONG, message.payload))

    def _end_with(self, code: int, reason: str, frame: bytes) -> None:
        if not self._over:
            self._over = True
            self._channel.transport.write(frame)
            self._channel.transport.resume_reading()
        self._tell(code, reason)

    def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            self._events.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def _accept(self, subprotocol: str | None, headers: Any) -> None:
        fields, _ = header_block(headers)
        if subprotocol is not None:
            fields += b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("latin-1")
        self._accepted = True
        await self._channel.send(
            b"%bupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %b\r\n%b\r\n"
            % (status_line(101), accept_key(self._head.fields["sec-websocket-key"]), fields)
        )
        self._channel.transport.resume_reading()
        self.data_received(b"")

    async def _refuse(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._refusal.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._refusal.send({"type": "http.response.body"})


def _frame(event: Event) -> bytes:
    if event.get("bytes") is not None:
        return encode(Opcode.BINARY, event["bytes"])
    return encode(Opcode.TEXT, event["text"].encode())
