"""The server for code that blocks: each connection is served by one thread, from accept to close.

With one thread it is the shortest way from a request to its response; the other threads start when they are needed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from contextvars import copy_context

from . import internal, logs, process
from .http1 import BadRequest, Disconnected, Head, Parser, problem

_RECEIVE_BYTES = 64 * 1024
_LONG = 30
"""Seconds without a request after which a process rests."""
_PATIENCE = (int(socket.SOL_SOCKET), int(socket.SO_RCVTIMEO), struct.pack("@ll", _LONG, 0))

Send = Callable[[bytes], None]
Rest = Callable[[int], None]
"""Called where a descriptor has had nothing to read for long; returns when it has, or a signal came, or at once."""
Answer = Callable[[Head, bytes, Send], bool]
"""Answers one request, given its head, its body, and what sends bytes. Returns whether the connection may go on."""


def accept(listener: socket.socket) -> socket.socket:
    """Waits for a connection, as ``listener.accept`` does by way of enums, whose memory a fork would copy.

    Raises:
        OSError: the listener is shut down or closed.
    """
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    return socket.socket(fileno=descriptor)


class Connection:
    """One connection, read and written by one thread at a time.

    Args:
        peer: its socket.
        max_body: bytes that the body of a request may have.
        rest: see `Rest`.
    """

    def __init__(self, peer: socket.socket, max_body: int, rest: Rest | None = None) -> None:
        self.socket = peer
        self.parser = Parser(max_body)
        self._rest = rest
        self._ending = False
        self._idle = False
        if rest is not None:
            peer.setsockopt(*_PATIENCE)

    def head(self) -> Head | None:
        """Waits for a request. Returns None when there is to be no further one.

        Raises:
            BadRequest: what came is not acceptable; the connection is to be closed.
            Disconnected: it broke.
        """
        head = self.parser.head() if self.parser.buffered else None
        while head is None:
            data = self._wait()
            if not data:
                return None
            self.parser.feed(data)
            head = self.parser.head()
        return head

    def request(self) -> tuple[Head, bytes] | None:
        """Waits for a request, and for the whole of its body. Returns None when there is to be no further one.

        Raises:
            BadRequest: what came is not acceptable; the connection is to be closed.
            Disconnected: it broke.
        """
        if not self.parser.buffered:
            data = self._wait()
            if not data:
                return None
            request = self.parser.repeated(data)
            if request is not None:
                return request
            self.parser.feed(data)
        head = self.head()
        return None if head is None else (head, self.body())

    def body(self) -> bytes:
        """Returns the whole body of the request.

        Raises:
            BadRequest: it is malformed or too large.
            Disconnected: the peer went away before its end.
        """
        piece = self.parser.piece()
        if not self.parser.left and piece is not None:
            return piece
        pieces = []
        while piece != b"":
            if piece is not None:
                pieces.append(piece)
            elif data := self._receive():
                self.parser.feed(data)
            else:
                raise Disconnected
            piece = self.parser.piece()
        return b"".join(pieces)

    def send(self, data: bytes) -> None:
        """Sends all of ``data``.

        Raises:
            Disconnected: the peer does not listen any more.
        """
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Disconnected from error

    def refuse(self, error: BadRequest) -> None:
        """Says what was wrong with a request, to a peer that still listens."""
        with contextlib.suppress(Disconnected):
            self.send(problem(error))

    def end(self) -> None:
        """Makes this the last request of the connection; called from another thread or a signal handler."""
        self._ending = True
        if self._idle:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RD)

    def _wait(self) -> bytes:
        """Waits for the next request; returns nothing where there is to be none."""
        self._idle = True
        data = b"" if self._ending else self._receive()
        self._idle = not data
        return data

    def _receive(self) -> bytes:
        while True:
            try:
                return self.socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                if self._rest is not None and self._idle:
                    self._rest(self.socket.fileno())
            except OSError as error:
                raise Disconnected from error


class Server:
    """Serves one listener with up to ``concurrency`` threads, the calling one among them."""

    def __init__(self, answer: Answer, concurrency: int, max_body: int) -> None:
        self._answer = answer
        self._rest: Rest | None = None
        self._concurrency = concurrency
        self._max_body = max_body
        self._listener: socket.socket
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._waiting = 0
        self._stopping = False

    def run(self, listener: socket.socket, first: Connection | None, rest: Rest | None = None) -> None:
        """Serves until SIGTERM; requests that run then are finished.

        Python runs a signal's handler between instructions: a signal in the instant before a thread begins to wait
        is noticed when the next request comes. Whoever sends it ends the process after a while anyway.

        Args:
            listener: where connections come from.
            first: a connection that is open already.
            rest: see `Rest`.
        """
        self._listener, self._rest = listener, rest
        process.on_sigterm(lambda *_: self._stop())
        self._work(first)
        for thread in self._threads:
            thread.join()

    def _stop(self) -> None:
        self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes those who wait in accept
        except OSError:
            self._listener.close()  # gVisor's kernel refuses; whoever the signal has woken finds nothing to wait at
        for connection in list(self._connections):
            connection.end()

    def _work(self, connection: Connection | None = None) -> None:
        while not self._stopping:
            connection = connection or self._accept()
            if connection is None:
                return
            if self._concurrency > 1:
                self._keep_one_waiting()
            self.serve(connection)
            connection = None

    def _accept(self) -> Connection | None:
        with self._lock:
            self._waiting += 1
        try:
            peer = accept(self._listener)
        except OSError:
            if self._stopping:
                return None
            raise
        finally:
            with self._lock:
                self._waiting -= 1
        return Connection(peer, self._max_body, self._rest)

    def _keep_one_waiting(self) -> None:
        with self._lock:
            if self._waiting or len(self._threads) + 1 >= self._concurrency:
                return
            thread = threading.Thread(target=self._work, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no room for another thread: the connection that waits is served when one is free
            self._threads.append(thread)

    def serve(self, connection: Connection) -> None:
        """Answers what comes over a connection, until there is no more."""
        self._connections.add(connection)
        try:
            if self._stopping:
                connection.end()
            while (request := connection.request()) is not None:
                # What a request sets in context variables must not be seen by the next.
                if not copy_context().run(self._handle, *request, connection):
                    return
        except BadRequest as error:
            connection.refuse(error)
        except Disconnected:
            pass
        finally:
            self._connections.discard(connection)
            connection.socket.close()

    def _handle(self, head: Head, body: bytes, connection: Connection) -> bool:
        if head.target.startswith(internal.PREFIX):
            connection.send(internal.answer(head))
            return head.keep_alive
        logs.begin(head)
        try:
            return self._answer(head, body, connection.send)
        finally:
            logs.end()
