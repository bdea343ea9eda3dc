"""Connections over ports: how requests pass the wall of a microVM that has nothing but byte channels.

A port is a channel that is always open; a link lends it to one connection after the other. What goes over it is cut
into frames, so that both ends agree where a connection ends:

    length, 4 bytes, big-endian; then as many bytes of the connection, at most 64 KiB
    0             nothing more comes from this side
    0xffffffff    the connection is gone: what is still to come is of no use

Only the side that began says the last, perhaps after the other one has begun to forget the connection: it is heard
before anything of the next one. A port is free again once both sides have said that nothing more comes. Each side takes
no more from one end than the other end has taken: a slow reader slows its writer down, and nobody else.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

PIECE = 64 * 1024
_LENGTH = struct.Struct(">I")
_END, _RESET = 0, 0xFFFFFFFF

Connect = Callable[[], socket.socket]
"""Returns the connection that goes on where the port ends. Raises OSError."""


class PortGone(Exception):
    """Whoever holds the other end of the port has ended, or does not keep to the frames."""


class Interests:
    """What descriptors are watched for; one with nothing is not registered: its hanging up would be told for ever."""

    def __init__(self) -> None:
        self.events = select.epoll()
        self._watched: dict[int, int] = {}

    def watch(self, descriptor: int, wanted: int) -> None:
        """Watches a descriptor for ``wanted`` from now on; 0: for nothing."""
        before = self._watched.get(descriptor, 0)
        if wanted == before:
            return
        if not wanted:
            self.events.unregister(descriptor)
            del self._watched[descriptor]
            return
        (self.events.modify if before else self.events.register)(descriptor, wanted)
        self._watched[descriptor] = wanted

    def renew(self) -> None:
        """Watches descriptors on that have become something else."""
        for descriptor, wanted in self._watched.items():
            with suppress(FileExistsError):
                self.events.register(descriptor, wanted)


class Link:
    """See the module.

    Args:
        port: its descriptor, which does not block.
        interests: by which both ends are watched.
        connect: makes the connection when its first bytes come; None: this side's begin with `carry`.
    """

    def __init__(self, port: int, interests: Interests, connect: Connect | None = None) -> None:
        os.set_blocking(port, False)
        self.port = port
        self._interests = interests
        self._connect = connect
        self._connection: socket.socket | None = None
        self._coming = b""
        self._to_port = b""
        self._to_connection = b""
        self._said_end = self._heard_end = True
        self._watch()

    @property
    def free(self) -> bool:
        """Whether it can take a connection."""
        return self._connection is None and self._said_end and self._heard_end and not self._to_port

    @property
    def quiet(self) -> bool:
        """Whether all that its connection had for the port has gone there."""
        return self._said_end and not self._to_port

    @property
    def finished(self) -> bool:
        """Whether all that the port had for its connection has come there."""
        return self._connection is None or (self._heard_end and not self._to_connection)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What `serve` is to be called for."""
        return (self.port,) if self._connection is None else (self.port, self._connection.fileno())

    def carry(self, connection: socket.socket, said: bytes = b"") -> None:
        """Takes a connection on, and what has been read from it; only where it is `free`."""
        connection.setblocking(False)
        self._connection = connection
        self._said_end = self._heard_end = False
        for begin in range(0, len(said), PIECE):
            piece = said[begin : begin + PIECE]
            self._to_port += _LENGTH.pack(len(piece)) + piece
        self._flush_port()
        self._watch()

    def serve(self, descriptor: int, event: int) -> None:
        """Does what can be done now.

        Raises:
            PortGone: nothing will come from the port any more.
        """
        if descriptor == self.port:
            self._serve_port(event)
        elif self._connection is not None and descriptor == self._connection.fileno():
            self._serve_connection(event)
        self._let_go()
        self._watch()

    def close(self) -> None:
        """Closes the connection that it carries, if there is one; the port stays open."""
        if self._connection is not None:
            self._interests.watch(self._connection.fileno(), 0)
            self._connection.close()
            self._connection = None

    def _serve_port(self, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush_port()
        if event & ~select.EPOLLOUT and not self._to_connection:
            try:
                piece = os.read(self.port, PIECE)
            except BlockingIOError:
                return
            except OSError as error:
                raise PortGone from error
            if not piece:
                raise PortGone
            self._coming += piece
            self._hear()

    def _hear(self) -> None:
        """Takes the frames apart that have come, as far as they have."""
        while len(self._coming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._coming)
            if length == _RESET:
                self._coming = self._coming[_LENGTH.size :]
                self._drop()
                self._heard_end = True
            elif length == _END:
                self._coming = self._coming[_LENGTH.size :]
                self._heard_end = True
            elif length > PIECE:
                raise PortGone
            elif len(self._coming) < _LENGTH.size + length:
                break
            else:
                self._take(self._coming[_LENGTH.size : _LENGTH.size + length])
                self._coming = self._coming[_LENGTH.size + length :]
        self._flush_connection()

    def _take(self, piece: bytes) -> None:
        if self._connect is not None and self._connection is None and self._said_end and self._heard_end:
            self._said_end = self._heard_end = False
            try:
                self.carry(self._connect())
            except OSError:
                self._say(_END)
        if self._connection is not None:
            self._to_connection += piece

    def _serve_connection(self, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush_connection()
        if self._connection is None or self._to_port or not event & ~select.EPOLLOUT:
            return
        try:
            piece = b"" if self._said_end else self._connection.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._drop()
            return
        if piece:
            self._to_port = _LENGTH.pack(len(piece)) + piece
            self._flush_port()
        elif event & (select.EPOLLHUP | select.EPOLLERR):
            self._drop()
        elif not self._said_end:
            self._say(_END)

    def _say(self, word: int) -> None:
        self._said_end = True
        self._to_port += _LENGTH.pack(word)
        self._flush_port()

    def _drop(self) -> None:
        """Forgets a connection that is gone, and says so where the other side may still think of it."""
        if self._connection is None:
            return
        self.close()
        self._to_connection = b""
        if self._connect is None and not (self._said_end and self._heard_end):
            self._say(_RESET)
        elif not self._said_end:
            self._say(_END)

    def _let_go(self) -> None:
        """Closes a connection that has carried all."""
        connection = self._connection
        if connection is None or self._to_connection or not self._heard_end:
            return
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        if self._said_end and not self._to_port:
            self.close()

    def _flush_port(self) -> None:
        if self._to_port:
            try:
                self._to_port = self._to_port[os.write(self.port, self._to_port) :]
            except BlockingIOError:
                pass
            except OSError as error:
                raise PortGone from error

    def _flush_connection(self) -> None:
        if self._to_connection and self._connection is not None:
            try:
                self._to_connection = self._to_connection[self._connection.send(self._to_connection) :]
            except BlockingIOError:
                pass
            except OSError:
                self._drop()

    def _watch(self) -> None:
        reads = select.EPOLLIN if not self._to_connection else 0
        self._interests.watch(self.port, reads | (select.EPOLLOUT if self._to_port else 0))
        if self._connection is not None:
            reads = select.EPOLLIN if not (self._said_end or self._to_port) else 0
            wanted = reads | (select.EPOLLOUT if self._to_connection else 0)
            self._interests.watch(self._connection.fileno(), wanted)
