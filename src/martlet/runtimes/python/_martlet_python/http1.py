"""HTTP/1.1 as functions of bytes: nothing here touches a socket.

`Parser` turns received bytes into requests and `Framing` turns a response into bytes to send. Both servers, the
blocking and the evented one, are built on them. The grammar is RFC 9112; what is malformed raises `BadRequest`.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from http import HTTPStatus
from typing import TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

MAX_HEAD = 64 * 1024
"""Bytes of a request line and headers together; the gateway's own limit is lower."""

MAX_TRAILERS = 32

CHUNKED = -1

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE_END = rb"[^\r\n\0]*+\r\n"
# One pass over the head checks all of it and picks out what says where the body ends, which is all that most requests
# need. A plain content-length is group 4; whatever else concerns the connection, a second content-length too, and what
# is for the runtime, is 5.
# The outer repeat is not possessive: captures inside one are broken in Python before 3.11.8 (gh-106052).
_HEAD = re.compile(
    rb"(%b) (/[!-~\x80-\xff]*+|\*) HTTP/1\.([01])\r\n(?:"
    rb"(?(4)(?!)|(?i:content-length): ?(\d{1,15})\r\n)"
    rb"|((?i:connection|content-length|transfer-encoding|x-open-runtimes-[a-z-]++):)%b"
    rb"|%b:%b)*" % (_TOKEN, _LINE_END, _TOKEN, _LINE_END)
)
_LAST_LINE = re.compile(rb"x-request-id: [!-~]{1,128}\r\n")
_ID = b"x-request-id: "
_FIELD = re.compile(rb"%b: %b" % (_TOKEN, _LINE_END))
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_OUR_FIELDS = frozenset((b"connection", b"content-length", b"keep-alive", b"transfer-encoding"))

Result = TypeVar("Result")
_Reading: TypeAlias = "Generator[bytes | None, None, Result]"


class BadRequest(Exception):
    """The peer sent what is not acceptable HTTP. The connection cannot go on."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Disconnected(ConnectionError):
    """The peer went away before the request or the response was complete."""


class Head:
    """Request line and headers.

    Attributes:
        method: as sent (`GET`).
        target: path and query as sent, percent-encoded.
        minor: 0 or 1, of HTTP/1.x.
        length: bytes of the body, or `CHUNKED`.
        keep_alive: whether the peer wants to use the connection again.
        open_runtimes: whether a header or the path concerns the runtime, in the manner of Open Runtimes.
    """

    __slots__ = ("_data", "_fields", "keep_alive", "length", "method", "minor", "open_runtimes", "target")

    def __init__(self, data: bytes) -> None:
        match = _HEAD.fullmatch(data)
        if match is None:
            raise BadRequest("this is not an HTTP/1.1 request")
        method, target, minor, length, special = match.groups()
        self.method: str = method.decode()
        self.target: str = target.decode("latin-1")
        self.minor = 1 if minor == b"1" else 0
        self._data = data
        self._fields: dict[str, str] | None = None
        if special is None:
            self.length = 0 if length is None else int(length)
            self.keep_alive = self.minor == 1
            self.open_runtimes = target.startswith(b"/__opr/")
        else:
            self.length = _length(self.fields)
            self.keep_alive = self.minor == 1 and "close" not in self.fields.get("connection", "").lower()
            self.open_runtimes = target.startswith(b"/__opr/") or any(
                name.startswith("x-open-runtimes-") for name in self.fields
            )

    def repeat(self, data: bytes) -> Head:
        """Returns a head that says the same but for headers that matter to the handler alone."""
        head = Head.__new__(Head)
        head.method, head.target, head.minor = self.method, self.target, self.minor
        head.length, head.keep_alive, head.open_runtimes = self.length, self.keep_alive, self.open_runtimes
        head._data, head._fields = data, None
        return head

    @property
    def fields(self) -> dict[str, str]:
        """Headers in the order sent, names in lower case; values of one that came twice are joined with a comma."""
        if self._fields is None:
            self._fields = _fields(self._data)
        return self._fields


def decode_path(path: str) -> str:
    """Returns a path of a target as text: percent-decoded, and read as UTF-8."""
    return unquote_to_bytes(path.encode("latin-1")).decode("utf-8", "replace")


def _fields(data: bytes) -> dict[str, str]:
    lines = data.decode("latin-1").split("\r\n")[1:-1]
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip(" \t")
    return fields if len(fields) == len(lines) else _joined(lines)


def _joined(lines: list[str]) -> dict[str, str]:
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return {name: ("; " if name == "cookie" else ", ").join(values) for name, values in fields.items()}


def _length(fields: dict[str, str]) -> int:
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise BadRequest("a body must either have a content-length or be chunked")
        return CHUNKED
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) < 16):
        raise BadRequest(f"content-length must be a number of bytes, not {length!r}")
    return int(length)


class Parser:
    """Reads requests from the bytes of one connection, however they are cut: `head`, then `piece` to the end.

    Both answer None when they need more bytes from `feed`.

    Attributes:
        max_body: bytes a body may have.
        left: bytes of the body that are still to be read; `CHUNKED` when that is not known.
        trailers: lines that came behind the chunks of the last body.
    """

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self.left = 0
        self.trailers: list[bytes] = []
        self._buffer = b""
        self._at = 0
        self._chunks: _Reading[None] | None = None
        self._known: tuple[bytes, Head] | None = None

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet read."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Adds bytes that were received."""
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def repeated(self, data: bytes) -> tuple[Head, bytes] | None:
        """Returns the request that ``data`` is, from its first byte to its last, with its body.

        None: it is for `feed`, because it is not one like the last but for its id and its body. What is the same to the
        byte cannot be framed differently, and needs no parser. Nothing may be buffered.
        """
        if self._known is None:
            return None
        known, head = self._known
        if not data.startswith(known) or head.length == CHUNKED:
            return None
        end = len(data) - head.length
        line = data[len(known) : end]
        if not (line.startswith(_ID) and line.endswith(b"\r\n\r\n") and line[len(_ID) : -4].isalnum()):
            return None
        return head.repeat(data[: end - 2]), data[end:]

    def rest(self) -> bytes:
        """Takes all that is buffered, for a connection that changes to another protocol."""
        data, self._buffer, self._at = self._buffer[self._at :], b"", 0
        return data

    def head(self) -> Head | None:
        """Reads the head of the next request.

        Raises:
            BadRequest: it is malformed or too large, or announces a body over ``max_body``.
        """
        end = self._buffer.find(b"\r\n\r\n", self._at)
        if end < 0 or end - self._at > MAX_HEAD:
            if self.buffered > MAX_HEAD:
                raise BadRequest("the request's headers are too large", 431)
            return None
        head = self._read_head(self._buffer[self._at : end + 2])
        self._at = end + 4
        self.left = head.length
        if head.length > self.max_body:
            raise self._too_large()
        if head.length == CHUNKED:
            self.trailers = []
            self._chunks = self._read_chunks()
        return head

    def _read_head(self, data: bytes) -> Head:
        """Parses a head; one that is the last one but for the request's id, its last line, is known already."""
        if self._known is not None:
            known, head = self._known
            if data.startswith(known) and _LAST_LINE.fullmatch(data, len(known)):
                return head.repeat(data)
        head = Head(data)
        last_line = data.rfind(b"\r\n", 0, -2) + 2
        if _LAST_LINE.fullmatch(data, last_line):
            self._known = data[:last_line], head
        return head

    def piece(self) -> bytes | None:
        """Reads the next bytes of the body; empty ones are its end.

        Raises:
            BadRequest: the chunks are malformed, or are over ``max_body`` together.
        """
        if not self.left:
            return b""
        if self._chunks is None:
            piece = self._take(self.left)
            self.left -= len(piece)
            return piece or None
        chunk = next(self._chunks, b"")
        if chunk == b"":
            self._chunks, self.left = None, 0
        return chunk

    def _take(self, size: int) -> bytes:
        piece = self._buffer[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _read_chunks(self) -> _Reading[None]:
        total = 0
        while size := (yield from self._chunk_size()):
            total += size
            if total > self.max_body:
                raise self._too_large()
            while size:
                piece = self._take(size)
                size -= len(piece)
                yield piece or None
            if (yield from self._line()):
                raise BadRequest("a chunk is longer than its size says")
        while trailer := (yield from self._line()):
            if len(self.trailers) == MAX_TRAILERS:
                raise BadRequest("there are too many trailers")
            self.trailers.append(trailer)

    def _chunk_size(self) -> _Reading[int]:
        line = yield from self._line()
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise BadRequest("a chunk does not begin with its size")
        return int(match[1], 16)

    def _line(self) -> _Reading[bytes]:
        while (end := self._buffer.find(b"\r\n", self._at)) < 0:
            if self.buffered > MAX_HEAD:
                raise BadRequest("a line between chunks is too long")
            yield None
        line = self._take(end - self._at)
        self._at += 2
        return line

    def _too_large(self) -> BadRequest:
        return BadRequest(f"the request body is over {self.max_body} bytes", 413)


def header_block(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, int | None]:
    """Writes a response's headers as they stand on the wire.

    Headers that say how the body is framed are left to `Framing`.

    Returns:
        The lines, each with its line end, and the content-length that was among them (None: there was none).

    Raises:
        ValueError: a name or value has characters that would end the line, or content-length is not a number.
    """
    lines, length = [], None
    for name, value in pairs:
        key = name.lower()
        line = b"%b: %b\r\n" % (key, value)
        if _FIELD.fullmatch(line) is None:
            raise ValueError(f"{name!r}: {value!r} cannot be sent as a header")
        if key == b"content-length":
            length = int(value)
        if key not in _OUR_FIELDS:
            lines.append(line)
    return b"".join(lines), length


class Framing:
    """One response on its way: told what to send, it says which bytes to write.

    The first `send` carries the head: with a content-length when it is also the last one, or when `start` was told
    the length; chunked otherwise (and ended by closing the connection where the peer speaks HTTP/1.0).

    Attributes:
        started: bytes of the response exist, so it is too late for another one.
        keep_alive: whether the connection may carry another request afterwards.
    """

    def __init__(self, head: Head) -> None:
        self.started = False
        self.keep_alive = head.keep_alive
        self._head_only = head.method == "HEAD"
        self._can_chunk = head.minor == 1
        self._status = 0
        self._fields = b""
        self._length: int | None = None
        self._bodiless = self._chunked = False
        self._sent = 0

    @property
    def ready(self) -> bool:
        """Whether `start` was called."""
        return self._status != 0

    def start(self, status: int, fields: bytes, length: int | None = None) -> None:
        """Sets status and headers (of `header_block`); nothing is sent before the first `send`."""
        self._status, self._fields, self._length = status, fields, length
        self._bodiless = self._head_only or status in (204, 304)

    def send(self, data: bytes, more: bool) -> bytes:
        """Returns the bytes to write for this part of the body.

        Args:
            data: the part; may be empty.
            more: whether another part follows.

        Raises:
            ValueError: the body is longer or shorter than the content-length promised.
        """
        self._sent += len(data)
        if not self._bodiless:
            self._check(more)
        head = b"" if self.started else self._begin(more)
        if self._bodiless:
            return head
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            return head + chunk + (b"" if more else b"0\r\n\r\n")
        return head + data

    def _check(self, more: bool) -> None:
        promised = self._length
        if promised is not None and (self._sent > promised or (not more and self._sent < promised)):
            raise ValueError(f"the body has {self._sent} bytes where its content-length says {promised}")

    def _begin(self, more: bool) -> bytes:
        self.started = True
        framing = b""
        if self._status not in (204, 304):
            if self._length is None and not more:
                self._length = self._sent
            if self._length is not None:
                framing = b"content-length: %d\r\n" % self._length
            elif self._can_chunk:
                self._chunked, framing = True, b"transfer-encoding: chunked\r\n"
            else:
                self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        return b"".join((status_line(self._status), self._fields, framing, b"\r\n"))


def whole(head: Head, status: int, fields: bytes, body: bytes) -> bytes:
    """Returns a whole response at once: what a `Framing` says that is given all of the body."""
    if status in (204, 304) or head.method == "HEAD" or not head.keep_alive:
        framing = Framing(head)
        framing.start(status, fields)
        return framing.send(body, more=False)
    line = _STATUS_LINES.get(status) or status_line(status)
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (line, fields, len(body), body)


def problem(error: BadRequest) -> bytes:
    """Returns the response to a malformed request; the connection is to be closed after it."""
    message = str(error).encode("ascii", "backslashreplace")
    return b"%bcontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
        status_line(error.status),
        len(message),
        message,
    )


def status_line(status: int) -> bytes:
    """Returns the first line of a response, with its line end."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
