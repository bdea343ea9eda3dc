"""What a zygote and a keeper have in common: they start cells for one lane after the other, and hear of their end.

Both listen on a `channel`; the lane that connects is the one they serve. What all of them say to it:

    parent → lane   {"event": "ready"} + pidfd of the parent
                    {"event": "broken", "error"}            there will be no parent
                    {"event": "forked", "id", "pid"}        a cell lives; a lane that connects hears of each
                    {"event": "exited", "id", "code"}

Cells die with their parent. A lane that dies leaves it a lease: when no lane has connected by its end, the parent ends,
and takes with it all that its cells had.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from martlet.sandbox import channel

_DAY = 86_400.0
_QUIET = 0.05
"""Seconds without a message after which nobody waits for a cell: what was begun has its core until then."""


class Parent(ABC):
    """See the module.

    Args:
        listener: the listening end of the channel.
        lease: seconds to wait for the next lane when one is gone.
    """

    def __init__(self, listener: socket.socket, lease: float) -> None:
        self._listener = listener
        self._lease = lease
        self._lease_ends = 0.0
        self._lane: socket.socket | None = None
        self._wakeup: int
        self._pids: dict[str, int] = {}
        self._ids: dict[int, str] = {}

    @abstractmethod
    def _serve(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Does what the lane asks for. The descriptors are its own to close."""

    @abstractmethod
    def _outside(self, pid: int) -> int:
        """Returns what the lane calls a process that is ``pid`` here."""

    @abstractmethod
    def _end(self) -> None:
        """Ends the cells and removes what they had, since nobody is left who would."""

    def _provision(self) -> Callable[[], None] | None:
        """Returns what makes something ahead that is not there; it is called when nothing has happened for a moment."""
        return None

    def run(self) -> None:
        """Serves one lane after the other, until none has come for the length of the lease."""
        self._listener.setblocking(False)
        self._begin_lease()
        self._wakeup, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while (patience := self._patience()) > 0:
            provide = self._provision()
            ready = self._wait(min(patience, _QUIET) if provide else patience)
            if provide and not ready:
                provide()
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._lane in ready:
                self._hear()
            if self._listener in ready:
                self._meet()
        self._end()

    def _wait(self, patience: float) -> list[Any]:
        """Returns where there is news, once there is some; nothing when none has come for that many seconds."""
        watched: list[Any] = [self._wakeup, self._listener, *filter(None, [self._lane])]
        return select.select(watched, [], [], patience)[0]

    def _patience(self) -> float:
        """Returns how many seconds to wait for news."""
        return _DAY if self._lane is not None else self._lease_ends - time.monotonic()

    def _meet(self) -> None:
        """Serves the lane that has connected, in place of the one before, and tells it what lives."""
        with contextlib.suppress(OSError):
            newcomer = channel.accept(self._listener)
            if self._lane is not None:
                self._lane.close()
            self._lane = newcomer
            for cell, pid in self._pids.items():
                self._tell("forked", id=cell, pid=self._outside(pid))
            self._tell_ready()

    def _hear(self) -> None:
        assert self._lane is not None
        received = channel.receive(self._lane)
        if received is not None:
            self._serve(*received)
            return
        self._lane.close()
        self._lane = None
        self._begin_lease()

    def _begin_lease(self) -> None:
        self._lease_ends = time.monotonic() + self._lease

    def _signal(self, cell: str, number: int) -> None:
        # A process that this one has not waited for keeps its id: no stranger is hit.
        if cell in self._pids:
            os.kill(self._pids[cell], number)

    def _begin(self, cell: str, pid: int) -> None:
        """Notes that a cell lives, and says so."""
        self._pids[cell], self._ids[pid] = pid, cell
        self._tell("forked", id=cell, pid=self._outside(pid))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._bury(pid, os.waitstatus_to_exitcode(status))

    def _bury(self, pid: int, code: int) -> None:
        """Says that a cell has ended, where that is what a child was.

        Without PID namespaces, a function can give its parent's parent others (CLONE_PARENT).
        """
        cell = self._ids.pop(pid, None)
        if cell is not None:
            del self._pids[cell]
            self._tell("exited", id=cell, code=code)

    def _tell_ready(self) -> None:
        own = os.pidfd_open(os.getpid())
        try:
            self._tell("ready", [own])
        finally:
            os.close(own)

    def _tell(self, event: str, descriptors: Sequence[int] = (), **members: object) -> None:
        if self._lane is not None:
            with contextlib.suppress(OSError):  # it is gone, which `_hear` learns as well
                channel.send(self._lane, {"event": event, **members}, descriptors)


def serve(listener: socket.socket, lease: float, make: Callable[[], Parent]) -> None:
    """Makes a parent and has it serve; where it cannot be made, tells the lane why.

    Raises:
        OSError: it could not be made.
    """
    try:
        parent = make()
    except OSError as error:
        _refuse(listener, lease, error)
        raise
    parent.run()


def _refuse(listener: socket.socket, patience: float, error: OSError) -> None:
    listener.settimeout(patience)
    with contextlib.suppress(OSError), channel.accept(listener) as lane:
        channel.send(lane, {"event": "broken", "error": str(error)})
