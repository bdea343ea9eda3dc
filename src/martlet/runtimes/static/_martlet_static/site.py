"""The files of a package, by the paths of requests."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import NamedTuple

_OURS = frozenset({"martlet.yaml", "martlet.yml"})
_SHOWN = ".well-known"
_PIECE = 1024 * 1024


class File(NamedTuple):
    """A file to be served, whose content never changes.

    Attributes:
        path: where it lies.
        size: its bytes.
        etag: says its content, with quotes.
    """

    path: str
    size: int
    etag: str


class Folder(NamedTuple):
    """A path that means a folder and lacks the slash at its end."""

    name: str


class Site:
    """A folder of files.

    Args:
        root: the folder.
        fallback: the file for paths that mean none and have no suffix, as single-page applications want it; None:
            they are not found.

    Raises:
        FileNotFoundError: there is no such fallback.
    """

    def __init__(self, root: str, fallback: str | None) -> None:
        self._root = os.path.realpath(root)
        self._fallback = None if fallback is None else self._file(fallback)
        if fallback is not None and self._fallback is None:
            raise FileNotFoundError(f"handler {fallback!r} names no file of the package")

    def find(self, path: str) -> File | Folder | None:
        """Returns what a decoded path means: a file, the index of a folder, or ``about.html`` for ``/about``."""
        relative = path.lstrip("/")
        if relative.endswith("/") or not relative:
            found = self._file(f"{relative}index.html")
        else:
            found = self._file(relative) or self._file(f"{relative}.html")
            if found is None and self._file(f"{relative}/index.html"):
                return Folder(relative.rpartition("/")[2])
        if found is None and "." not in relative.rpartition("/")[2]:
            return self._fallback
        return found

    def missing(self) -> File | None:
        """Returns the page for what is not found."""
        return self._file("404.html")

    def _file(self, relative: str) -> File | None:
        parts = relative.split("/")
        if "\0" in relative or any(_is_hidden(part) for part in parts) or parts[-1] in _OURS:
            return None
        path = os.path.realpath(os.path.join(self._root, *parts))
        inside = path.startswith(f"{self._root}{os.sep}")
        return _describe(path) if inside and os.path.isfile(path) else None


def _is_hidden(part: str) -> bool:
    """Whether a part of a path is none of a file that is shown: ``..``, ``.git`` and their like."""
    return not part or (part.startswith(".") and part != _SHOWN)


@lru_cache(maxsize=4096)
def _describe(path: str) -> File:
    digest = hashlib.blake2b(digest_size=12)
    size = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return File(path, size, f'"{digest.hexdigest()}"')
