"""What the host has for a cell before there is one: its socket, its log, its cgroup."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from martlet.drivers.held import LOG, SOCKET
from martlet.http.conversation import Conversation
from martlet.sandbox.cgroups import Group, Limits

_BACKLOG = 128


class Place:
    """See the module. It is made at once; what goes to the cell's parent is lent by descriptor, until it is closed.

    Args:
        directory: the cell's own.
        group: its cgroup to be; None on a host without.
        listens: whether it gets a socket.

    Attributes:
        directory, group: see above.
        limits: what the cgroup was limited to.
        conversation: with the cell to come, which takes what waits in its socket.

    Raises:
        OSError: the host refuses a part of it. The others are left, for who removes the cell.
    """

    def __init__(self, directory: Path, group: Group | None, *, listens: bool) -> None:
        self.directory, self.group = directory, group
        self.limits: Limits | None = None
        self.conversation: Conversation | None = None
        with contextlib.ExitStack() as opened:
            self._first = []
            if listens:
                listener = opened.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(str(directory / SOCKET))
                listener.listen(_BACKLOG)
                self._first.append(listener.fileno())
            self._first.append(_make_log(directory / LOG))
            opened.callback(os.close, self._first[-1])
            self._doors = []
            if group is not None:
                group.create()
                self._doors = group.open_doors()
                for door in self._doors:
                    opened.callback(os.close, door)
            self._opened = opened.pop_all()

    def limit(self, limits: Limits) -> None:
        """Sets the limits ahead. Raises OSError."""
        if self.group is not None:
            self.group.limit(limits)
            self.limits = limits

    def lend(self, namespace: int | None) -> list[int]:
        """Returns what goes to the parent: socket (where it listens), log, the namespace that is given, doors."""
        return [*self._first, *([] if namespace is None else [namespace]), *self._doors]

    def close(self) -> None:
        """Closes what it has lent; the cell has it by now, or there will be none."""
        self._opened.close()

    def __enter__(self) -> Self:
        """Returns it; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


def _make_log(path: Path) -> int:
    os.mkfifo(path)
    # For writing alone it would not open before there is a reader, and end the writer whenever there is none.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    # The cell opens /dev/stdout as whoever it is then; nobody else gets through the folder.
    os.fchmod(descriptor, 0o622)
    return descriptor
