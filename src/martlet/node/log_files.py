"""The log files of one lane: ``<directory>/<function>/<lane>.jsonl``, and ``….jsonl.7`` for what came before."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from martlet.errors import FunctionNotFound
from martlet.model import FUNCTION_NAME, LogLine

BLOCK = 64 * 1024
"""Bytes read at once, from the end of a file backwards."""
PIECES = 16
"""Files of a function; when the newest is full the oldest goes."""


class LogFiles:
    """Pieces of the log of each function, numbered on and on; the one that grows has the number after the last.

    They block, so they belong in a thread; they are not made for two threads at once.

    Args:
        directory: shared by all lanes, made where there is none.
        lane: what tells this lane's files from those of others.
        bytes_per_function: the most that the files of one function may have together.

    Attributes:
        on_dropped: called with the function, the number and the size of a piece that goes for want of room.
    """

    def __init__(self, directory: Path, lane: str, bytes_per_function: int) -> None:
        self.on_dropped: Callable[[str, int, int], None] = lambda function, number, size: None
        self._directory = directory
        self._lane = lane
        self._bytes_per_piece = bytes_per_function // PIECES
        self._whole: set[Path] = set()  # those whose last line is known to be all there

    def append(self, function: str, documents: Sequence[bytes]) -> None:
        """Writes lines, each with its line end. Raises OSError."""
        path = self._path(function)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path not in self._whole:
            _mend(path)
        self._whole.discard(path)  # until it is written: the disk may be full in the middle of a line
        size = path.stat().st_size if path.exists() else 0
        batch: list[bytes] = []
        for document in documents:
            if size and size + len(document) > self._bytes_per_piece:
                _write(path, batch)
                self._finish(function, path)
                batch, size = [], 0
            batch.append(document)
            size += len(document)
        _write(path, batch)
        self._whole.add(path)

    def newest_first(self, function: str) -> Iterator[LogLine]:
        """Yields the lines of a function from the last to the first. Raises OSError."""
        path = self._path(function)
        for piece in (path, *(_finished(path, number) for number in reversed(_numbers(path)))):
            with suppress(FileNotFoundError):
                for document in _lines_backwards(piece):
                    with suppress(ValidationError):  # a lane that was killed may have left half a line
                        yield LogLine.read(document)

    def pieces(self, function: str) -> dict[int, int]:
        """Returns the bytes of each piece by its number, the oldest first. Raises OSError."""
        path = self._path(function)
        numbers = _numbers(path)
        sizes = {number: _finished(path, number).stat().st_size for number in numbers}
        with suppress(FileNotFoundError):
            sizes[_next(numbers)] = path.stat().st_size
        return sizes

    def piece(self, function: str, number: int) -> bytes:
        """Returns the whole lines of a piece as they are now. Raises OSError."""
        path = self._path(function)
        found = path if number == _next(_numbers(path)) else _finished(path, number)
        data = found.read_bytes()
        return data[: data.rfind(b"\n") + 1]

    def functions(self) -> list[str]:
        """Returns the functions that have files of this lane."""
        return sorted({path.parent.name for path in self._directory.glob(f"*/{self._lane}.jsonl*")})

    def delete(self, function: str) -> None:
        """Removes the files of a function. Raises OSError."""
        path = self._path(function)
        self._whole.discard(path)
        for each in (path, *(_finished(path, number) for number in _numbers(path))):
            each.unlink(missing_ok=True)
        with suppress(OSError):  # other lanes have files there
            path.parent.rmdir()

    def _path(self, function: str) -> Path:
        if re.fullmatch(FUNCTION_NAME, function) is None:
            raise FunctionNotFound(f"{function!r} is no name of a function")
        return self._directory / function / f"{self._lane}.jsonl"

    def _finish(self, function: str, path: Path) -> None:
        """Begins a new piece, and drops the oldest where there are enough without it."""
        numbers = _numbers(path)
        path.replace(_finished(path, _next(numbers)))
        for number in numbers[: max(0, len(numbers) + 2 - PIECES)]:
            oldest = _finished(path, number)
            self.on_dropped(function, number, oldest.stat().st_size)
            oldest.unlink()


def _mend(path: Path) -> None:
    """Ends a line that an earlier life was killed in, or the disk had no room for: it must not spoil the next."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n":
            file.write(b"\n")


def _numbers(path: Path) -> list[int]:
    """Returns the numbers of the pieces that are finished, the oldest first."""
    if not path.parent.exists():
        return []
    endings = (name.removeprefix(f"{path.name}.") for name in os.listdir(path.parent))
    return sorted(int(ending) for ending in endings if ending.isdecimal())


def _next(numbers: list[int]) -> int:
    return numbers[-1] + 1 if numbers else 1


def _finished(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


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
