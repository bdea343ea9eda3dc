"""Carries connections to a program that listens elsewhere: bytes both ways, whatever they say."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from _martlet_python import internal  # type: ignore[import-not-found]
from _martlet_python.http1 import BadRequest, Parser, problem  # type: ignore[import-not-found]

from .child import Child
from .waiting import reap

_PIECE = 64 * 1024
_OURS = f"GET {internal.PREFIX}".encode()
_LAST_WORDS_SECONDS = 1.0

Connect = Callable[[], socket.socket]
"""Returns a connection to the program. Raises OSError."""


class _End:
    """One end of a connection that is carried.

    Attributes:
        unsent: bytes that are for it and that it has not taken yet.
        over: whether nothing more comes from it.
    """

    peer: _End

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self._is_tcp = end.family != socket.AF_UNIX
        self.unsent = b""
        self.over = False
        self.watched = 0

    @property
    def interest(self) -> int:
        """What it is to be watched for: more is taken from it once the other end has what came before."""
        reads = select.EPOLLIN if not (self.over or self.peer.unsent) else 0
        return reads | (select.EPOLLOUT if self.unsent else 0)

    def take(self) -> None:
        """Takes what has come, for the other end. Raises OSError."""
        piece = self.socket.recv(_PIECE)
        if self._is_tcp:
            # What writes the head of a response and then its body waits in between (Nagle) until the head has been
            # acknowledged, which would be put off for 40 ms.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.peer.unsent, self.over = piece, not piece
        self.peer.give()

    def give(self) -> None:
        """Gives it what it takes of what is there for it. Raises OSError."""
        if self.unsent:
            with suppress(BlockingIOError):
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        if self.peer.over and not self.unsent:
            self.socket.shutdown(socket.SHUT_WR)


class Relay:
    """See the module.

    Args:
        listener: where connections come from.
        child: the program.
        connect: see `Connect`.
        is_shim: whether the program knows the platform's own requests; else they are answered here.
    """

    def __init__(
        self, listener: socket.socket, child: Child, connect: Connect, *, is_shim: bool = True
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._child = child
        self._connect = connect
        self._is_shim = is_shim
        self._events = select.epoll()
        self._ends: dict[int, _End] = {}
        self._newcomers: dict[int, tuple[socket.socket, bytes]] = {}

    def run(self) -> int:
        """Carries until the program has ended. Returns the exit code that says how; SIGTERM is passed on."""
        wakeup, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(waker)
        self._events.register(wakeup, select.EPOLLIN)
        self._events.register(self._listener, select.EPOLLIN)
        code = reap(self._child)
        while code is None:
            for descriptor, event in self._events.poll():
                if descriptor == wakeup:
                    code = self._hear(os.read(wakeup, _PIECE))
                elif descriptor == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(descriptor, event)
        self._finish(wakeup)
        return code

    def _hear(self, signals: bytes) -> int | None:
        if signal.SIGTERM in signals and self._listener.fileno() >= 0:
            self._events.unregister(self._listener)
            self._listener.close()
        if signal.SIGTERM in signals:
            self._child.signal(signal.SIGTERM)
        return reap(self._child)

    def _finish(self, wakeup: int) -> None:
        """Carries what the program has said before its end."""
        self._events.unregister(wakeup)
        if self._listener.fileno() >= 0:
            self._events.unregister(self._listener)
        while self._ends and (events := self._events.poll(_LAST_WORDS_SECONDS)):
            for descriptor, event in events:
                self._serve(descriptor, event)

    def _accept(self) -> None:
        try:
            newcomer, _ = self._listener.accept()
        except OSError:
            return
        if self._is_shim:
            self._pair(newcomer, b"")
        else:
            newcomer.setblocking(False)
            self._newcomers[newcomer.fileno()] = newcomer, b""
            self._events.register(newcomer, select.EPOLLIN)

    def _serve(self, descriptor: int, event: int) -> None:
        end = self._ends.get(descriptor)
        if end is None:
            if descriptor in self._newcomers:  # else it was closed by what came just before
                self._meet(*self._newcomers.pop(descriptor))
            return
        try:
            if event & select.EPOLLOUT:
                end.give()
            if event & ~select.EPOLLOUT and not (end.over or end.peer.unsent):
                end.take()
        except BlockingIOError:
            pass
        except OSError:
            self._close(end)
            return
        self._watch(end)

    def _meet(self, newcomer: socket.socket, said: bytes) -> None:
        """Finds out whether a connection is the platform's own business; its first bytes say so."""
        self._events.unregister(newcomer)
        try:
            piece = newcomer.recv(_PIECE)
        except OSError:
            piece = b""
        said += piece
        if not piece:
            newcomer.close()
        elif not said.startswith(_OURS[: len(said)]):
            self._pair(newcomer, said)
        elif (answer := _answer(said)) is None:
            self._newcomers[newcomer.fileno()] = newcomer, said
            self._events.register(newcomer, select.EPOLLIN)
        else:
            with newcomer, suppress(OSError):
                newcomer.sendall(answer)

    def _pair(self, newcomer: socket.socket, said: bytes) -> None:
        try:
            one, other = _End(newcomer), _End(self._connect())
        except OSError:
            newcomer.close()  # which says more than any answer: the program was not reached
            return
        one.peer, other.peer = other, one
        self._ends[one.socket.fileno()], self._ends[other.socket.fileno()] = one, other
        other.unsent = said
        self._watch(one)

    def _watch(self, end: _End) -> None:
        """Watches both ends for what can be done next; closes them where nothing is left to do."""
        ends = (end, end.peer)
        if all(each.over and not each.unsent for each in ends):
            self._close(end)
            return
        for each in ends:
            wanted = each.interest
            if wanted == each.watched:
                continue
            # Without interest it is not registered at all: its hanging up would be told again and again.
            if not wanted:
                self._events.unregister(each.socket)
            elif each.watched:
                self._events.modify(each.socket, wanted)
            else:
                self._events.register(each.socket, wanted)
            each.watched = wanted

    def _close(self, end: _End) -> None:
        for each in (end, end.peer):
            del self._ends[each.socket.fileno()]
            each.socket.close()


def _answer(said: bytes) -> bytes | None:
    """Returns the answer to a request of the platform's; None where more of it is to come."""
    parser = Parser(max_body=0)
    parser.feed(said)
    try:
        head = parser.head()
    except BadRequest as error:
        refusal: bytes = problem(error)
        return refusal
    return None if head is None else internal.answer(head)
