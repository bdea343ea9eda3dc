"""What the function prints and logs, as frames that say which request they belong to.

A frame is the byte 0x1e and one line of JSON, written at once and at most as long as a pipe takes in one piece, so
that frames of several threads never mix. Text that is longer becomes several frames. When nobody reads the pipe, or
it is full and does not block, frames are lost: printing never fails.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from json.encoder import encode_basestring as quote
from typing import Any

from .http1 import Head

FRAME_BYTES = 4096
"""Longest frame: what POSIX lets a pipe take without mixing it with another writer's."""

_request: ContextVar[Head | None] = ContextVar("_martlet_request", default=None)
_only_request: Head | None = None
_one_at_a_time = False


def begin(head: Head) -> None:
    """Says that from here on this thread or task works on that request."""
    global _only_request
    if _one_at_a_time:
        _only_request = head
    else:
        _request.set(head)


def finish() -> None:
    """Writes the unfinished lines of this request: before the end of its response is sent, since whoever has that may
    look for them.
    """
    for buffer in _buffers:
        if buffer.unfinished:
            buffer.flush()


def end() -> None:
    """Says that the request is answered: its unfinished lines are written, and later ones are not its own."""
    global _only_request
    finish()
    if _one_at_a_time:
        _only_request = None
    else:
        _request.set(None)


def current_request() -> str | None:
    """Returns the id of the request that runs here.

    Threads that a handler starts do not inherit its context: their lines are told apart only where requests run one
    at a time.
    """
    head = _only_request if _one_at_a_time else _request.get()
    return None if head is None else head.fields.get("x-request-id")


def emit(descriptor: int, stream: str, text: str) -> None:
    """Writes text as frames of the stream, for the request that runs here."""
    write(descriptor, stream, text, current_request())


def write(descriptor: int, stream: str, text: str, request_id: str | None) -> None:
    """Writes text as frames of the stream, for the request of that id, or for none."""
    tag = "null" if request_id is None else quote(request_id[:128])
    head = f'\x1e{{"t":{time.time():.3f},"id":{tag},"s":{quote(stream[:64])},"m":'
    try:
        for frame in _frames(head.encode("utf-8", "replace"), text):
            os.write(descriptor, frame)
    except OSError:
        pass


def _frames(head: bytes, text: str) -> Iterator[bytes]:
    room = FRAME_BYTES - len(head) - len(b'""}\n')
    start = 0
    while True:
        piece = text[start : start + room]
        while len(body := quote(piece).encode("utf-8", "replace")) - 2 > room:
            piece = piece[: len(piece) // 2]
        if start + len(piece) < len(text) and (line := piece.rfind("\n") + 1):
            piece = piece[:line]
            body = quote(piece[:-1]).encode("utf-8", "replace")
        yield b"%b%b}\n" % (head, body)
        start += len(piece)
        if start >= len(text):
            return


class LineBuffer(io.BufferedIOBase):
    """The bytes side of ``sys.stdout`` or ``sys.stderr``: every line that is complete becomes a frame.

    What has no line end yet waits, apart for each thread and request, until it has one, is flushed, outgrows a frame,
    or its request ends.
    """

    def __init__(self, descriptor: int, stream: str) -> None:
        self.name = f"<{stream}>"
        self._descriptor = descriptor
        self._stream = stream
        self.unfinished: dict[tuple[int, str | None], bytes] = {}

    def write(self, data: Any) -> int:
        """Takes any bytes; never fails."""
        data = bytes(data)
        writer = (threading.get_ident(), current_request())
        *lines, rest = (self.unfinished.pop(writer, b"") + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(rest) >= FRAME_BYTES:
            self._emit(rest)
        elif rest:
            self.unfinished[writer] = rest
        return len(data)

    def flush(self) -> None:
        """Writes what this thread and request have not finished as a line of its own."""
        if self.unfinished and (rest := self.unfinished.pop((threading.get_ident(), current_request()), b"")):
            self._emit(rest)

    def _emit(self, line: bytes) -> None:
        emit(self._descriptor, self._stream, line.decode("utf-8", "replace"))

    def fileno(self) -> int:
        """Returns the descriptor that raw writes and child processes use."""
        return self._descriptor

    def writable(self) -> bool:
        """Always."""
        return True


class LogHandler(logging.Handler):
    """Sends what is logged as frames whose stream is the level (``info``, ``warning``, ``error`` …)."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record, with the traceback it carries."""
        try:
            emit(2, record.levelname.lower(), self.format(record))
        except Exception:
            self.handleError(record)


def prepare() -> None:
    """Makes what `install` puts in place, and gives ``logging`` a root handler, at level INFO.

    Done before the fork, so that the forks share it.
    """
    if not _streams:
        _streams.extend(
            io.TextIOWrapper(buffer, "utf-8", "backslashreplace", newline="\n", write_through=True)
            for buffer in _buffers
        )
        _replaced.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
        logging.root.handlers[:] = [_handler]
        logging.root.setLevel(logging.INFO)
        logging.basicConfig = _basic_config(logging.basicConfig)


def tell_apart(one_at_a_time: bool) -> None:
    """Says how lines are told apart that belong to different requests.

    Args:
        one_at_a_time: whether the process runs one request at a time, so that whatever is printed while it runs is
            that request's.
    """
    global _one_at_a_time
    _one_at_a_time = one_at_a_time


def install() -> None:
    """Replaces ``sys.stdout`` and ``sys.stderr``."""
    sys.stdout, sys.stderr = _streams
    sys.__stdout__, sys.__stderr__ = _streams  # type: ignore[misc]


def _basic_config(original: Callable[..., None]) -> Callable[..., None]:
    def configure(**options: Any) -> None:
        """As in a program whose root logger has no handler yet; where only a level is given, frames go on."""
        if logging.root.handlers != [_handler]:
            original(**options)
        elif options.keys() <= {"level"}:
            logging.root.setLevel(options.get("level") or logging.root.level)
        else:
            original(**{**options, "force": True})

    return configure


_buffers = (LineBuffer(1, "stdout"), LineBuffer(2, "stderr"))
_streams: list[io.TextIOWrapper] = []
_replaced: list[Any] = []
"""What `install` takes the place of. Kept, because freeing it would cost a fork memory."""
_handler = LogHandler()
