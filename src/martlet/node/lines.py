"""What an instance prints, taken apart into lines (see "The instance contract" in docs/design.md).

Nothing is trusted: lines may be endless, frames forged, and any byte may come anywhere.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

FRAME = b"\x1e"
MAX_LINE = 4096
"""Bytes of the longest line; a longer one becomes several. A frame is never longer: it is written in one piece."""

MAX_AGE = 3600.0
"""Seconds that a frame may have waited to be read; one that claims to be older, or of the future, is of now."""

REQUEST_ID_LENGTH = 128
STREAM = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
USUAL_STREAMS = frozenset({"stdout", "stderr", "debug", "info", "warning", "error", "critical"})

NUL, NO_NUL = "\0", "\ufffd"
"""NUL bytes end strings in too many of the programs that logs are fed to."""


class Line(NamedTuple):
    """One line: when (seconds since the epoch), of which request, on which stream, and what."""

    time: float
    request_id: str | None
    stream: str
    message: str


class LineParser:
    """Takes one instance's output in any pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, now: float, request_id: str | None) -> list[Line]:
        """Returns the lines that ``data`` completes.

        Args:
            data: the next bytes.
            now: the time of lines that do not tell theirs.
            request_id: whose the lines are that do not tell it.
        """
        found: list[Line] = []
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            _take(line, True, now, request_id, found)
        self._rest = _take(rest, False, now, request_id, found)
        return found

    def end(self, now: float, request_id: str | None) -> list[Line]:
        """Returns the line that was not finished, if any."""
        found: list[Line] = []
        if self._rest:
            _take(self._rest, True, now, request_id, found)
            self._rest = b""
        return found


def _take(line: bytes, ended: bool, now: float, request_id: str | None, found: list[Line]) -> bytes:
    """Takes what is certain of a line, which is all of it where it has ended, and returns the rest."""
    while True:
        text, mark, frame = line.partition(FRAME)
        if len(text) > MAX_LINE:
            line = _take_piece(line, now, request_id, found)
            continue
        if not mark:
            break
        if text:  # it had no line end of its own
            found.append(_plain(text, now, request_id))
        if len(frame) > MAX_LINE:
            line = _take_piece(frame, now, request_id, found)
            continue
        if ended:
            found.append(_framed(frame, now) or _plain(frame, now, request_id))
            return b""
        return mark + frame
    if ended:
        found.append(_plain(text, now, request_id))
        return b""
    return text


def _take_piece(text: bytes, now: float, request_id: str | None, found: list[Line]) -> bytes:
    """Takes as much as a line may have, whole characters where it is UTF-8, and returns the rest."""
    end = next((end for end in range(MAX_LINE, MAX_LINE - 4, -1) if text[end] & 0xC0 != 0x80), MAX_LINE)
    found.append(_plain(text[:end], now, request_id))
    return text[end:]


def _plain(text: bytes, now: float, request_id: str | None) -> Line:
    message = text.removesuffix(b"\r").decode("utf-8", "replace")
    return Line(now, request_id, "stdout", message.replace(NUL, NO_NUL))


def _framed(frame: bytes, now: float) -> Line | None:
    try:
        document = orjson.loads(frame)
        time, request_id, stream, message = document["t"], document["id"], document["s"], document["m"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if type(time) not in (float, int) or type(stream) is not str or type(message) is not str:
        return None
    if request_id is not None:
        if type(request_id) is not str:
            return None
        request_id = request_id[:REQUEST_ID_LENGTH]
    if not now - MAX_AGE <= time <= now + 1:
        time = now
    if stream not in USUAL_STREAMS and STREAM.fullmatch(stream) is None:
        stream = "stdout"
    return Line(time, request_id, stream, message.replace(NUL, NO_NUL))
