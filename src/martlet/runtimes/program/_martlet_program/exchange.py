"""One request and its response, as they stand on the pipes of a program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from _martlet_python.http1 import MAX_HEAD, Head  # type: ignore[import-not-found]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?\r\n")
FRAMING = ("content-length", "transfer-encoding", "connection", "keep-alive")
"""Fields of a head that say how its body comes; a program is told the bytes of the body instead."""


class BadResponse(Exception):
    """What came is no response; the program cannot go on."""


def request(head: Head, body: bytes) -> bytes:
    """Returns a request as programs get it: its body always has a content-length."""
    lines = [f"{head.method} {head.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in head.fields.items() if name not in FRAMING]
    lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Response:
    """Finds the end of a response, and passes on all of it as it is.

    Args:
        bodiless: whether there is none whatever its head says, because the request was for that.
        read: returns what comes next; nothing at the end.

    Attributes:
        complete: whether all of it has been read, the piece that was returned last included.
    """

    def __init__(self, bodiless: bool, read: Callable[[], bytes]) -> None:
        self._bodiless = bodiless
        self._read = read
        self._buffer = b""
        self.complete = False

    def pieces(self) -> Iterator[bytes]:
        """Returns what to send. Raises `BadResponse`."""
        while True:
            head = self._until(b"\r\n\r\n")
            found = _STATUS.match(head)
            if found is None:
                raise BadResponse(f"{head[:64]!r} is no response")
            if not found[1].startswith(b"1"):
                break
            yield head
        if self._bodiless or found[1] in (b"204", b"304"):
            yield self._last(head)
        elif _CHUNKED.search(head):
            yield head
            yield from self._chunks()
        elif length := _LENGTH.search(head):
            yield from self._sized(head, int(length[1]))
        else:
            raise BadResponse("a response has neither a content-length nor chunks")

    def _sized(self, head: bytes, size: int) -> Iterator[bytes]:
        if size == 0:
            yield self._last(head)
            return
        yield head
        for piece in self._exactly(size):
            size -= len(piece)
            yield piece if size else self._last(piece)

    def _last(self, piece: bytes) -> bytes:
        if self._buffer:
            raise BadResponse("a response is longer than it says")
        self.complete = True
        return piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._until(b"\r\n")
            found = _CHUNK_SIZE.fullmatch(line)
            if found is None:
                raise BadResponse("a chunk does not begin with its size")
            yield line
            size = int(found[1], 16)
            if not size:
                break
            yield from self._exactly(size + 2)
        while (line := self._until(b"\r\n")) != b"\r\n":
            yield line
        yield self._last(line)

    def _until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise BadResponse("the head of a response is too large")
            self._more()
        end += len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._more()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    def _more(self) -> None:
        piece = self._read()
        if not piece:
            raise BadResponse("it ends in the middle of a response")
        self._buffer += piece
