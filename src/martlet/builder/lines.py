"""The lines of a build's log, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from martlet.model import Frozen


class BuildLine(Frozen):
    """One line of a build's log."""

    time: float
    message: str


def write_lines(lines: Iterable[BuildLine]) -> bytes:
    """Returns lines as `read_lines` reads them."""
    return b"".join(line.model_dump_json().encode() + b"\n" for line in lines)


def read_lines(content: bytes) -> list[BuildLine]:
    """Returns what `write_lines` wrote; a last line that was cut off is left out."""
    return [BuildLine.read(line) for line in content.splitlines() if line.endswith(b"}")]


def read_log(folder: Path) -> list[BuildLine]:
    """Returns what the build with this folder has said so far."""
    try:
        return read_lines((folder / "log").read_bytes())
    except FileNotFoundError:
        return []
