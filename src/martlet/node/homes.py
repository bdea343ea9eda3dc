"""Which lane is at home to a revision: the one that holds its place in files that all lanes of a machine share.

A place is a few bytes of one of these files, which need not have them, and who holds it is who has locked them. The
length of the lock says which lane that is. The kernel lets go of what a process has locked when it ends, however it
ends; so a place is never held by nobody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from hashlib import blake2b
from pathlib import Path

_FILES = 16
"""The kernel keeps the locks of a file in a list, and goes through it."""
_BYTES = 1 << 15
"""Of a place. There are fewer lanes; the other 48 of the 63 bits of a position in a file say which place it is."""
_LOCK = struct.Struct("@hhqqi4x")
"""``struct flock``: type, from where (the beginning: `os.SEEK_SET`), first byte, bytes, and a process id that is 0."""


class Homes:
    """See the module.

    Args:
        lane: this lane.
        folder: where the files are; it is there when the first place is asked for.
    """

    def __init__(self, lane: int, folder: Path) -> None:
        self._lane = lane
        self._folder = folder
        self._files: dict[int, int] = {}
        self._taken: dict[str, tuple[int, int]] = {}

    @property
    def taken(self) -> list[str]:
        """The revisions whose place this lane holds."""
        return list(self._taken)

    def holds(self, revision: str) -> bool:
        """Whether this lane holds the place of a revision."""
        return revision in self._taken

    def holder(self, revision: str) -> int | None:
        """Returns the lane that holds the place of a revision, or None."""
        if revision in self._taken:
            return self._lane
        descriptor, first = self._place(revision)
        # Held by a single lane: it would be in the way of a lock of whatever length.
        lock = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, first, 1))
        kind, _, _, length, _ = _LOCK.unpack(lock)
        return None if kind == fcntl.F_UNLCK else length - 1

    def take(self, revision: str) -> int:
        """Takes the place of a revision where nobody holds it. Returns who does now."""
        while (holder := self.holder(revision)) is None:
            descriptor, first = place = self._place(revision)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, first, 1 + self._lane))
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            else:
                self._taken[revision] = place
        return holder

    def leave(self, revision: str) -> None:
        """Gives up the place of a revision; harmless where this lane does not hold it."""
        place = self._taken.pop(revision, None)
        if place is not None:
            descriptor, first = place
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_UNLCK, first, 1 + self._lane))

    def close(self) -> None:
        """Gives up all places."""
        self._taken.clear()
        while self._files:
            os.close(self._files.popitem()[1])

    def _place(self, revision: str) -> tuple[int, int]:
        """Returns the file with the place of a revision, and the first byte of it."""
        digest = int.from_bytes(blake2b(revision.encode(), digest_size=6).digest())
        return self._file(digest % _FILES), digest * _BYTES

    def _file(self, number: int) -> int:
        if number not in self._files:
            path = self._folder / f"homes-{number}"
            self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return self._files[number]


def _lock(kind: int, first: int, length: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, first, length, 0)
