"""Where the parts of an image lie: an OCI image layout (a folder or an archive), or what ``docker save`` writes."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from martlet.errors import Invalid
from martlet.images.refusal import too_large, unusable
from martlet.images.streams import decompressed
from martlet.package.rules import reason_of, shown
from martlet.package.staging import CHUNK, Readable
from martlet.package.tar import BLOCK, Kind, is_tar, members

_MOST_PARTS = 10_000
_MOST_HOPS = 8


class Parts(Protocol):
    """The files of a layout, by their path in it."""

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Gives what a part holds. Raises `Invalid` where there is none."""

    def has(self, name: str) -> bool:
        """Whether there is such a part."""


@contextmanager
def opened(path: Path, work: Path, limit: int) -> Iterator[Parts]:
    """Gives the parts of a layout.

    Args:
        path: a folder, or an archive that may be compressed.
        work: where an archive is decompressed.
        limit: bytes that one may decompress to.

    Raises:
        Invalid: it is neither, or damaged.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise unusable(f"{path} cannot be read: {error.strerror}") from None
    with file:
        head = file.read(BLOCK)
        file.seek(0)
        if is_tar(head):
            yield _Archive(file)
            return
        with decompressed(file) as plain, (work / "archive").open("w+b") as copy:
            _copy(plain, copy, limit)
            head = copy.read(BLOCK)
            copy.seek(0)
            if not is_tar(head):
                raise unusable(
                    "it is no archive of an image: send an OCI archive, or what `docker save` or `podman save` writes"
                )
            yield _Archive(copy)


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        path = (self._folder / name).resolve()
        if not path.is_relative_to(self._folder):
            raise unusable(f"its part {shown(name)} leads out of its folder")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            raise _lacks(name) from None
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _lacks(name)
            yield file

    def has(self, name: str) -> bool:
        return (self._folder / name).is_file()


class _Archive:
    """An uncompressed tar that can be read from anywhere."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._index()
        except Invalid as error:
            raise unusable(reason_of(error)) from None

    def _index(self) -> None:
        for count, member in enumerate(members(self._file)):
            if count > _MOST_PARTS:
                raise unusable(f"it has over {_MOST_PARTS} parts")
            name = posixpath.normpath(member.name)
            if member.kind is Kind.FILE:
                self._places[name] = self._file.tell(), member.content.size
            elif member.kind is Kind.LINK:
                self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.target))
            elif member.kind is Kind.COPY:
                self._links[name] = posixpath.normpath(member.target)

    @contextmanager
    def open(self, name: str) -> Iterator[Readable]:
        name = self._followed(name)
        if name not in self._places:
            raise _lacks(name)
        yield _Slice(self._file, *self._places[name])

    def has(self, name: str) -> bool:
        return self._followed(name) in self._places

    def _followed(self, name: str) -> str:
        for _ in range(_MOST_HOPS):
            name = self._links.get(name, name)
        return name


class _Slice:
    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._at = start
        self._left = size

    def read(self, size: int, /) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(min(size, self._left))
        self._at += len(data)
        self._left -= len(data)
        return data


def _copy(source: Readable, target: BinaryIO, limit: int) -> None:
    left = limit
    while data := source.read(CHUNK):
        left -= len(data)
        if left < 0:
            raise too_large(limit)
        target.write(data)
    target.seek(0)


def _lacks(name: str) -> Invalid:
    return unusable(f"it lacks its part {shown(name)}; is it cut off, or no image?")
