"""A process that is forked ahead, and becomes the next cell that somebody waits for.

To fork takes a millisecond and more, and to make it namespaces of its own half of one, in which nobody needs to know
whose the cell is to be. The successor waits behind that, and is told over a socket what else its parent would have
known before the fork. It ends when its parent is gone, the only one with the other end of the socket.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from martlet.sandbox import channel

_QUIET = 0.05
"""Seconds without news after which it takes itself for one that is not needed yet."""
Become = Callable[[dict[str, Any], list[int]], NoReturn]
"""What it does when it is told who it is, with what it was told and given."""


class Successor:
    """The one of a parent.

    Args:
        fork: forks a process that runs what it is given; returns its id. Raises OSError.
        begin: what it does at once. Raises OSError.
        practise: what it does when nobody needs it yet.
        become: see `Become`.

    Attributes:
        wanted: whether there is none, and to make one is of use.
    """

    def __init__(
        self,
        fork: Callable[[Callable[[], NoReturn]], int],
        begin: Callable[[], None],
        practise: Callable[[], None],
        become: Become,
    ) -> None:
        self._fork = fork
        self._begin = begin
        self._practise = practise
        self._become = become
        self._pid: int | None = None
        self._end: socket.socket
        self.wanted = True

    def make(self) -> None:
        """Forks it; where that fails, the next cell is forked when it is needed."""
        self.wanted = False
        self._end, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def wait() -> NoReturn:
            try:
                self._end.close()
                self._begin()
                if not select.select([other], [], [], _QUIET)[0]:
                    self._practise()
                told = channel.receive(other)
                other.close()
                if told is not None:
                    self._become(*told)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)

        try:
            self._pid = self._fork(wait)
        except OSError:
            self._end.close()
        finally:
            other.close()

    def appoint(self, message: dict[str, Any], descriptors: list[int]) -> int | None:
        """Tells it who it is, and gives it copies of descriptors.

        Returns:
            Its process id; None where there is none that can be told, and another one is wanted.
        """
        self.wanted = True
        pid, self._pid = self._pid, None
        if pid is None:
            return None
        try:
            channel.send(self._end, message, descriptors)
        except OSError:
            return None
        finally:
            self._end.close()
        return pid

    def dismiss(self) -> None:
        """Ends it, since what it was forked from has changed; another one is wanted."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._forget()

    def ended(self, pid: int, code: int) -> None:
        """A child has ended, with this exit code: where it was the successor, another one is wanted if it was killed.

        One that has ended by itself could not begin, nor could another one: the next that is needed is forked then,
        and says why.
        """
        if pid == self._pid:
            self._forget()
            self.wanted = code < 0

    def _forget(self) -> None:
        self._pid, self.wanted = None, True
        self._end.close()
