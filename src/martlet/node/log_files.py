"""The log files of one lane: ``<directory>/<function>/<lane>.jsonl``, and ``….jsonl.1`` with what came before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from martlet.errors import FunctionNotFound
from martlet.model import FUNCTION_NAME, LogLine

BLOCK = 64 * 1024
"""Bytes read at once, from the end of a file backwards."""


class LogFiles:
    """Two files for each function, of which the older is thrown away when the newer is full.

    They block, so they belong in a thread; they are not made for two threads at once.

    Args:
        directory: shared by all lanes, made where there is none.
        lane: what tells this lane's files from those of others.
        bytes_per_file: the most that one file may grow to.
    """

    def __init__(self, directory: Path, lane: str, bytes_per_file: int) -> None:
        self._directory = directory
        self._lane = lane
        self._bytes_per_file = bytes_per_file
        self._mended: set[Path] = set()

    def append(self, function: str, documents: Sequence[bytes]) -> None:
        """Writes lines, each with its line end. Raises OSError."""
        path, old = self._paths(function)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mend(path)
        size = path.stat().st_size if path.exists() else 0
        batch: list[bytes] = []
        for document in documents:
            if size and size + len(document) > self._bytes_per_file:
                _write(path, batch)
                path.replace(old)
                batch, size = [], 0
            batch.append(document)
            size += len(document)
        _write(path, batch)

    def newest_first(self, function: str) -> Iterator[LogLine]:
        """Yields the lines of a function from the last to the first. Raises OSError."""
        for path in self._paths(function):
            with suppress(FileNotFoundError):
                for document in _lines_backwards(path):
                    with suppress(ValidationError):  # a lane that was killed may have left half a line
                        yield LogLine.model_validate_json(document)

    def delete(self, function: str) -> None:
        """Removes the files of a function. Raises OSError."""
        paths = self._paths(function)
        self._mended.difference_update(paths)
        for path in paths:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # other lanes have files there
            paths[0].parent.rmdir()

    def _paths(self, function: str) -> tuple[Path, Path]:
        if re.fullmatch(FUNCTION_NAME, function) is None:
            raise FunctionNotFound(f"{function!r} is no name of a function")
        path = self._directory / function / f"{self._lane}.jsonl"
        return path, path.with_suffix(".jsonl.1")

    def _mend(self, path: Path) -> None:
        """Ends the line that an earlier life was killed in, so that it does not spoil the next."""
        if path not in self._mended:
            self._mended.add(path)
            with suppress(FileNotFoundError), path.open("r+b") as file:
                if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n":
                    file.write(b"\n")


def _write(path: Path, documents: list[bytes]) -> None:
    with path.open("ab") as file:
        file.write(b"".join(documents))


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            rest, *lines = (file.read(size) + rest).split(b"\n")
            yield from reversed(lines)
        yield rest
