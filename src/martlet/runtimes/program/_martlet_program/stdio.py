"""Programs that serve requests over stdin and stdout, one at a time: for languages that have no sockets."""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from _martlet_python import blocking  # type: ignore[import-not-found]
from _martlet_python.http1 import Disconnected, Head  # type: ignore[import-not-found]

from . import exchange
from .child import Child, pipe
from .exchange import BadResponse, Response
from .waiting import exit_code

_PIECE = 64 * 1024
_END_SECONDS = 1.0


class Ends(Protocol):
    """What a process of the program is asked by, and answers by.

    Attributes:
        given: the ends that are the program's, by the numbers that they have there.
    """

    given: Mapping[int, int]

    def let_go(self) -> None:
        """Closes the program's ends, once it has them."""

    def ask(self, head: Head, body: bytes) -> Iterator[tuple[bytes, bool]]:
        """Asks it. Yields its response in pieces, and whether a piece is the last.

        Raises:
            BadResponse: it says what is no response, or ends.
            BrokenPipeError: likewise.
            Disconnected: it has broken off its response, and can take another request.
        """

    def close(self) -> None:
        """Lets it end: no more requests come."""


class Pipes:
    """The `Ends` of a program that reads requests from stdin and writes responses to stdout."""

    def __init__(self) -> None:
        stdin, self._writer = pipe()
        self._reader, stdout = pipe()
        self.given: Mapping[int, int] = {0: stdin, 1: stdout}

    def let_go(self) -> None:
        """See `Ends`."""
        for descriptor in self.given.values():
            os.close(descriptor)

    def ask(self, head: Head, body: bytes) -> Iterator[tuple[bytes, bool]]:
        """See `Ends`."""
        write(self._writer, exchange.request(head, body))
        response = Response(head.method == "HEAD", lambda: os.read(self._reader, _PIECE))
        for piece in response.pieces():
            yield piece, response.complete

    def close(self) -> None:
        """See `Ends`."""
        os.close(self._writer)


class Worker:
    """One process of the program."""

    def __init__(self, child: Child, ends: Ends) -> None:
        self.child = child
        self._ends = ends

    def answer(
        self, head: Head, body: bytes, send: Callable[[bytes], None], free: Callable[[], None]
    ) -> None:
        """Has it answer one request; ``free`` is called when it can take another, before the client knows.

        Raises:
            BadResponse: it says what is no response, or ends.
            Disconnected: the client has gone away, or is to be left; the response was heard to its end nevertheless.
        """
        gone: Disconnected | None = None
        try:
            for piece, last in self._ends.ask(head, body):
                if last:
                    free()
                try:
                    if piece and gone is None:
                        send(piece)
                except Disconnected as error:
                    gone = error
        except BrokenPipeError:
            raise BadResponse("it does not listen any more") from None
        if gone is not None:
            raise gone

    def end(self) -> None:
        """Lets it end, as it does when no more requests come, and makes it."""
        self._ends.close()
        self.child.signal(signal.SIGTERM)
        if not self.child.ended(_END_SECONDS):
            self.child.signal(signal.SIGKILL)


class Server:
    """Serves a listener with up to ``concurrency`` processes, which start when they are needed.

    A process that ends ends all of them: what it was is not known to be true of the next.
    """

    def __init__(
        self,
        listener: socket.socket,
        first: Worker,
        another: Callable[[], Worker],
        concurrency: int,
        max_body: int,
    ) -> None:
        self._listener = listener
        self._another = another
        self._server = blocking.Server(self._answer, concurrency, max_body)
        self._room = concurrency - 1
        self._workers = [first]
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._idle.put(first)
        self._lock = threading.Lock()
        self._ending = False

    def run(self) -> int:
        """Serves until SIGTERM, or until a process has ended. Returns the exit code."""
        signal.signal(signal.SIGCHLD, lambda *_: self._reap())
        self._reap()
        self._server.run(self._listener, None)
        self._ending = True
        for worker in self._workers:
            worker.end()
        return 0

    def _answer(self, head: Head, body: bytes, send: Callable[[bytes], None]) -> bool:
        worker = self._take()
        try:
            worker.answer(head, body, send, lambda: self._idle.put(worker))
        except BadResponse as error:
            print(f"the runtime has not answered as it should: {error}", flush=True)
            os._exit(exit_code(worker.child.code()) if worker.child.ended(_END_SECONDS) else 1)
        keep_alive: bool = head.keep_alive
        return keep_alive

    def _take(self) -> Worker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if self._room:
                self._room -= 1
                try:
                    worker = self._another()
                except OSError as error:
                    print(error, flush=True)
                else:
                    self._workers.append(worker)
                    return worker
        return self._idle.get()

    def _reap(self) -> None:
        """Waits for what has ended; ends with a process that was to serve."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            ended = [worker.child for worker in self._workers if worker.child.pid == found.si_pid]
            if ended and not self._ending:
                os._exit(exit_code(ended[0].code()))
            os.waitpid(found.si_pid, 0)


def write(descriptor: int, data: bytes) -> None:
    """Writes all of it. Raises BrokenPipeError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
