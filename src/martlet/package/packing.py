"""The canonical form: the same files always make the same bytes, whoever packs them, wherever, whenever.

Entries sorted by path; no times, no owners; modes 0644 or 0755. The digest is that of the uncompressed tar, so that
the compressor may change.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from martlet.package.ignore import Ignore
from martlet.package.rules import Limits, Tally, check_links, refused, safe_path, shown
from martlet.package.staging import CHUNK
from martlet.package.tar import BLOCK, Kind, header

PREFIX = "packages"
"""Where packages lie in the blobs."""

COMPRESSION = 1
"""Level of gzip: packages are written once and read a few times on the same machine, so speed counts."""


@dataclass(frozen=True, slots=True)
class Package:
    """A packed folder: the file it lies in, its name (``digest``) and what it unpacks to."""

    path: Path
    digest: str
    bytes: int
    entries: int


def pack(folder: Path, target: Path, limits: Limits, ignore: Ignore | None = None) -> Package:
    """Packs a folder into the file ``target``.

    Args:
        folder: what to pack.
        target: the file to write.
        limits: the most it may hold.
        ignore: what to leave out; nothing by default.

    Raises:
        Invalid: the folder is empty, or holds something no package may.
    """
    tally = Tally(limits)
    entries = sorted(_entries(folder, ignore, tally))
    check_links({path: os.readlink(folder / path) for path, kind in entries if kind is Kind.LINK})
    if all(kind is Kind.FOLDER for _, kind in entries):
        raise refused("there are no files in it")
    with target.open("wb") as file, gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as compressed:
        writer = _Writer(compressed)
        for path, kind in entries:
            _write(writer, folder, path, kind, tally)
        writer.write(bytes(2 * BLOCK))
    return Package(target, writer.hash.hexdigest(), tally.bytes, tally.entries)


class _Writer:
    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.hash.update(data)
        self._file.write(data)


def _entries(
    folder: Path, ignore: Ignore | None, tally: Tally, below: str = ""
) -> Iterator[tuple[str, Kind]]:
    with os.scandir(folder / below) as found:
        for entry in found:
            path = safe_path(f"{below}/{entry.name}" if below else f"./{entry.name}")
            kind = _kind(entry, path, ignore)
            if kind is None:
                continue
            tally.add_entry()
            yield path, kind
            if kind is Kind.FOLDER:
                yield from _entries(folder, ignore, tally, path)


def _kind(entry: os.DirEntry[str], path: str, ignore: Ignore | None) -> Kind | None:
    """Returns what an entry is; None where it is left out."""
    if ignore is not None and ignore.matches(path, entry.is_dir(follow_symlinks=False)):
        return None
    if entry.is_symlink():
        return Kind.LINK
    if entry.is_dir():
        return Kind.FOLDER
    if entry.is_file():
        return Kind.FILE
    raise refused(f"{shown(path)} is a device, a FIFO or a socket; only files, folders and links may be")


def _write(writer: _Writer, folder: Path, path: str, kind: Kind, tally: Tally) -> None:
    if kind is Kind.FOLDER:
        writer.write(header(path, kind))
    elif kind is Kind.LINK:
        writer.write(header(path, kind, target=os.readlink(folder / path)))
    else:
        try:
            descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise refused(f"{shown(path)} cannot be read: {error.strerror}") from None
        with open(descriptor, "rb") as file:
            _write_file(writer, file, path, tally)


def _write_file(writer: _Writer, file: BinaryIO, path: str, tally: Tally) -> None:
    status = os.fstat(file.fileno())
    tally.add_bytes(status.st_size)
    writer.write(header(path, Kind.FILE, size=status.st_size, executable=bool(status.st_mode & stat.S_IXUSR)))
    left = status.st_size
    while left and (data := file.read(min(CHUNK, left))):
        writer.write(data)
        left -= len(data)
    if left:
        raise refused(f"{shown(path)} changed while it was packed; try again")
    writer.write(bytes(-status.st_size % BLOCK))
