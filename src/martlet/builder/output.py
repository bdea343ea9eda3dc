"""What a command prints, as lines: cut where they are endless, and where there is no end of them.

Nothing that a terminal would obey is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from martlet.terminal import plain

LONGEST_LINE = 2000
MOST_BYTES, MOST_LINES = 4 * 1024 * 1024, 20_000
"""What is kept of the output of one command."""
_REST = "(the rest of the output is left out)"


async def relay(output: asyncio.StreamReader, on_line: Callable[[str], None]) -> None:
    """Calls ``on_line`` with each line, until the output ends."""
    rest = b""
    bytes_left, lines_left = MOST_BYTES, MOST_LINES
    while data := await output.read(65536):
        if bytes_left < 0 or lines_left < 0:
            continue
        bytes_left -= len(data)
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        for line in lines[:lines_left]:
            on_line(_text(line))
        lines_left -= len(lines)
        if bytes_left < 0 or lines_left < 0:
            on_line(_REST)
            rest = b""
    if rest:
        on_line(_text(rest))


def _text(line: bytes) -> str:
    return plain(line.decode("utf-8", "replace"))[:LONGEST_LINE]
