"""A cell of a guest as its agent has it: a process, the way to it, and what only that process hears.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable

from martlet.microvm import practice

_LINE = 4096


class Resident:
    """See the module.

    Args:
        at: the path of its socket.

    Attributes:
        hears: the descriptor by which its process hears the variables that are not in the request with its code.
        pid: of that process; 0: it has not been started.
    """

    def __init__(self, at: str) -> None:
        self._at = at
        self.hears, self._tells = os.pipe2(os.O_CLOEXEC)
        self.pid = 0
        self._ahead: socket.socket | None = None
        self._told = False

    def start(self, fork: Callable[[socket.socket], int]) -> None:
        """Starts its process by ``fork``, which is given what it listens on, and returns its id."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._at)
            listener.listen(128)
            self.pid = fork(listener)

    def connect_ahead(self) -> None:
        """Makes the connection that is to be the first: it is there then when code comes. Raises OSError."""
        self._ahead = practice.connect(self._at)

    def connect(self) -> socket.socket:
        """Returns a connection to it. Raises OSError."""
        ahead, self._ahead = self._ahead, None
        if not self._told and ahead is not None:  # this one may be about something else
            self.connect_ahead()
        if ahead is not None and not _is_over(ahead):
            return ahead
        if ahead is not None:
            ahead.close()
        return practice.connect(self._at)

    def tell(self, variables: dict[str, str]) -> None:
        """Says what it is to hear, once."""
        self._told = True
        said = json.dumps(variables, ensure_ascii=False).encode()
        os.write(self._tells, said)  # a pipe has room for all that there may be
        os.close(self._tells)

    def hear(self) -> dict[str, str]:
        """Returns that, in its process; waits until it is said."""
        said = b""
        while piece := os.read(self.hears, _LINE):
            said += piece
        os.close(self.hears)
        variables: dict[str, str] = json.loads(said)
        return variables

    def end(self) -> None:
        """Ends its process, and the way to it. It has been told what it is to hear."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.unlink(self._at)
        os.close(self.hears)


def _is_over(connection: socket.socket) -> bool:
    """Whether the cell has closed a connection over which nobody has asked for anything: it got its code by another."""
    return bool(select.select([connection], [], [], 0)[0])
