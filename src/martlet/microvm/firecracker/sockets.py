"""Unix sockets that lie where Firecracker may put what it likes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_SOCKET_PATH = 107
"""Bytes of a path that a socket can be made at; the kernel keeps one more for the end."""


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Yields what to connect to for the socket at a path, however long that is.

    A jail belongs to the user of its Firecracker. Where a guest has taken that over there may be a link to a socket of
    the host's in its place, which nobody but the host may talk to: it is not followed.

    Raises:
        OSError: there is nothing, or no socket.
    """
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(found).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK), str(path))
        yield f"/proc/self/fd/{found}"
    finally:
        os.close(found)
