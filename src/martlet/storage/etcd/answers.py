"""What etcd answers: errors, and streams of messages."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any

import httpx2
import orjson

from martlet.storage.store import StoreError

_NOT_DONE = ("etcdserver: no leader", "raft proposal dropped", "etcdserver: too many requests")


class Code(IntEnum):
    """The codes of gRPC that mean something to us."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_LATER = frozenset({Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE})


class Refused(StoreError):
    """etcd has answered with an error; ``code`` is gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def later(self) -> bool:
        """Whether another member, or the same one later, may do it."""
        return self.code in _LATER or self.not_done

    @property
    def not_done(self) -> bool:
        """Whether it is certain that nothing was written."""
        return str(self) in _NOT_DONE

    @property
    def stale_token(self) -> bool:
        """Whether the token has run out, or was given before users were changed."""
        return self.code == Code.UNAUTHENTICATED or "revision of auth store is old" in str(self)


class Unanswered(StoreError):
    """A member gave no answer; ``sent`` says whether it may have got the request."""

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Messages:
    """The messages of a stream, as `Client.stream` makes them."""

    def __init__(self, member: str, answer: httpx2.Response, closing: asyncio.Event) -> None:
        self._member = member
        self._answer = answer
        self._pieces = answer.aiter_bytes()
        self._closing = closing
        self._buffer = bytearray()
        self._reading: asyncio.Task[bytes] | None = None

    async def next(self, timeout: float) -> list[dict[str, Any]]:
        """Returns the messages that have come; none where nothing comes within ``timeout`` seconds.

        Raises:
            Refused: the member has ended the stream with an error.
            Unanswered: the stream has broken off, or the client was closed.
        """
        try:
            piece = await self._read(timeout)
        except (OSError, httpx2.HTTPError) as error:
            raise Unanswered(f"{self._member}: {reason(error)}", True) from error
        if piece is None:
            return []
        if not piece:
            raise Unanswered(f"{self._member}: it has ended the stream", True)
        self._buffer += piece
        if b"\n" not in piece:
            return []
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        return [_result(line) for line in lines if line]

    async def close(self) -> None:
        """Ends the stream."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._answer.aclose()

    async def _read(self, timeout: float) -> bytes | None:
        """Returns the next piece, empty at the end; None where there is none in time."""
        # A task of its own: one that is waited for with a timeout would be cancelled by it, in the midst of a piece.
        reading = self._reading = self._reading or asyncio.create_task(self._piece())
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait((reading, closing), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
        if self._closing.is_set():
            raise Unanswered("the store is closed", True)
        if not reading.done():
            return None
        self._reading = None
        return reading.result()

    async def _piece(self) -> bytes:
        return await anext(self._pieces, b"")


def reason(error: Exception) -> str:
    """Returns what to say of an error that may have no words of its own."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def refused(body: bytes | bytearray) -> Refused:
    """Returns the error that an answer, or the last message of a stream, is."""
    try:
        document = orjson.loads(body.strip())
        inner = document["error"] if isinstance(document["error"], dict) else document
        return Refused(int(inner["code"] if "code" in inner else inner["grpc_code"]), str(inner["message"]))
    except (ValueError, LookupError, TypeError, AttributeError):
        return Refused(Code.UNKNOWN, f"this is no answer of etcd: {bytes(body[:200])!r}")


def _result(line: bytes | bytearray) -> dict[str, Any]:
    """Returns a message of a stream. Raises `Refused` where it is an error."""
    message = orjson.loads(line)
    if "error" in message:
        raise refused(line)
    result: dict[str, Any] = message["result"]
    return result
