"""What processes of a program write to stderr: lines of the log, and the reason of a request that fails."""

from __future__ import annotations

import os
import select
import threading

from .child import pipe

_PIECE = 64 * 1024
_LOG = 2


class Complaints:
    """Passes lines on to the log as they come, and knows the last one of a request.

    Attributes:
        writer: what the processes have as stderr.
    """

    def __init__(self) -> None:
        self._reader, self.writer = pipe()
        os.set_blocking(self._reader, False)
        self._lock = threading.Lock()
        self._rest = b""
        self._last = b""

    def follow(self) -> None:
        """Begins to pass on what is written, by whom and whenever it is."""
        threading.Thread(target=self._follow, daemon=True).start()

    def settle(self) -> str:
        """Passes on what has been written until now. Returns the last line since this was called before, or none."""
        with self._lock:
            self._pass_on()
            if self._rest:
                self._say(self._rest)
            last, self._rest, self._last = self._last, b"", b""
        return last.decode("utf-8", "replace")

    def _follow(self) -> None:
        events = select.poll()
        events.register(self._reader, select.POLLIN)
        written = True
        while written:
            events.poll()
            with self._lock:
                written = self._pass_on()

    def _pass_on(self) -> bool:
        """Says lines until there are no more for now. Returns whether there may ever be."""
        while True:
            try:
                data = os.read(self._reader, _PIECE)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._say(line)
            if len(self._rest) > _PIECE:
                self._say(self._rest)
                self._rest = b""

    def _say(self, line: bytes) -> None:
        os.write(_LOG, line + b"\n")
        if line:
            self._last = line
