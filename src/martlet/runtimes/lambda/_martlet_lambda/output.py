"""What one program prints: every line is sent on as a frame that says which invocation it belongs to.

A program has one invocation at a time: from the answer to its ``next`` until it asks again. Whatever it printed before
it says something to the Runtime API is in its pipes by then, so they are read before it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from _martlet_python import logs

_PIPE_BYTES = 64 * 1024
"""What a pipe holds: one read takes all that has been printed."""


class Output:
    """See the module. It reads whenever something is printed, on the running event loop.

    Attributes:
        stdout: the descriptor that the program gets; so with ``stderr``.
    """

    def __init__(self) -> None:
        self._request_id: str | None = None
        self._out, self.stdout = _Lines.pipe(1, "stdout")
        self._err, self.stderr = _Lines.pipe(2, "stderr")
        for lines in (self._out, self._err):
            asyncio.get_running_loop().add_reader(lines.source, self.take)

    def started(self) -> None:
        """Closes the program's ends: it has its own."""
        os.close(self.stdout)
        os.close(self.stderr)

    def take(self) -> None:
        """Sends on the lines that have been printed."""
        for lines in (self._out, self._err):
            lines.take(self._request_id)

    def belongs_to(self, request_id: str | None) -> None:
        """Says which invocation the program has from here on; what it printed before was the last one's."""
        self.finish()
        self._request_id = request_id

    def finish(self) -> None:
        """Sends on all that has been printed, also what has no line end yet."""
        self.take()
        for lines in (self._out, self._err):
            lines.finish(self._request_id)


class _Lines:
    """One stream of a program; ``source`` is where it is read."""

    def __init__(self, source: int, target: int, stream: str) -> None:
        self.source = source
        self._target = target
        self._stream = stream
        self._unfinished = b""

    @classmethod
    def pipe(cls, target: int, stream: str) -> tuple[_Lines, int]:
        """Makes one with the pipe that it reads; returns it and the end to be written to."""
        source, end = os.pipe()
        os.set_blocking(source, False)
        return cls(source, target, stream), end

    def take(self, request_id: str | None) -> None:
        """Reads what is there, and sends on the lines that are complete."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.source, _PIPE_BYTES)
            if not data:  # nobody can print any more
                asyncio.get_running_loop().remove_reader(self.source)
            *lines, self._unfinished = (self._unfinished + data).split(b"\n")
            for line in lines:
                self._send(line, request_id)
        if len(self._unfinished) >= logs.FRAME_BYTES:
            self.finish(request_id)

    def finish(self, request_id: str | None) -> None:
        """Sends on what has no line end yet, as a line."""
        if self._unfinished:
            line, self._unfinished = self._unfinished, b""
            self._send(line, request_id)

    def _send(self, line: bytes, request_id: str | None) -> None:
        logs.write(self._target, self._stream, line.decode("utf-8", "replace"), request_id)
