"""What the warden of a microVM and the agent inside it say to each other: one JSON document on each line.

    agent → warden   {"event": "warm"}                          the runtime is; the machine may be saved
    zygote → agent   {"op": "rehearse"}                         before there are clones: goes the ways that they will go
    agent → zygote   {"event": "rehearses", "cell", "limits", "example"}  whether a cell waits already, what limits it
                     has, and the files of a function, which another cell is ready to become; null: there is none
    zygote → agent   {"op": "rest"}                             the other cell is ended
    agent → zygote   {"event": "rests"}
    warden → agent   {"op": "wake", "entropy", "time", "network"}  it is another machine now; null, or {"address",
                     "resolvers"}: what it is by network, and the text of its ``resolv.conf``, if it leads anywhere
    warden → agent   {"op": "equip", "time", "hostname", "memory", "processes", "open_files", "scratch", "dependencies",
                     "token"}, then one stream of pieces with the code, and one with the dependencies, if there are any
    agent → warden   {"event": "equipped"}, or {"event": "refused", "error"}
    warden → agent   {"op": "signal", "signal"}
    agent → warden   {"event": "exited", "code", "oom_kills"}   the cell has ended

The token is null, or that of the metadata with the variables of the function (`firecracker.mmds`), which the request
that gives the cell its code does not have then.

A time, in ns, is older when it is heard than when it was said, the more so on a busy machine: of those that it hears a
guest goes by the latest.

A piece is its length (4 bytes, big-endian) and as many bytes; the piece of length 0 ends the stream (`folders`).
"""

from __future__ import annotations

import json
import os
import select
import struct
from collections.abc import Iterable
from typing import Any

from martlet.microvm import folders
from martlet.microvm.folders import PIECE

CONTROL, LOG = "control", "log"
"""The names of the ports that carry no requests."""
LINKS = tuple(f"link{number}" for number in range(16))
"""The names of those that do: so many requests run at once."""
VSOCK_PORTS = {name: 1024 + number for number, name in enumerate((CONTROL, LOG, *LINKS))}
"""The numbers that ports have where they are those of a vsock."""
_LONGEST = 64 * 1024
_LENGTH = struct.Struct(">I")


class Nonsense(Exception):
    """The other end has said what nobody of Martlet's says."""


class Control:
    """One end. ``descriptor`` blocks."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, True)
        self.descriptor = descriptor
        self._come = b""

    def send(self, **message: Any) -> None:
        """Says something. Raises OSError."""
        self._write(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        """Returns what is said next. Raises EOFError where the other end is gone, `Nonsense`, OSError."""
        while (message := self._next()) is None:
            self._come += self._more()
        return message

    def hear(self) -> dict[str, Any] | None:
        """Returns what is said next; None where not all of it is there. Raises as `receive`.

        For a descriptor that is known to be readable, or that has been read from: then it does not wait.
        """
        message = self._next()
        if message is None and select.select([self.descriptor], [], [], 0)[0]:
            self._come += self._more()
            message = self._next()
        return message

    def send_folder(self, parts: Iterable[bytes]) -> None:
        """Sends a folder that is packed (`folders`), as a stream of pieces. Raises OSError."""
        pieces = b""
        for part in parts:
            pieces += _LENGTH.pack(len(part)) + part
            if len(pieces) >= PIECE:
                self._write(pieces)
                pieces = b""
        self._write(pieces + _LENGTH.pack(0))

    def receive_folder(self, folder: str) -> None:
        """Makes what such a stream has in a folder; reads it to its end, also where that fails. Raises OSError."""
        reader = _Reader(self)
        try:
            folders.unpack(reader.read, folder)
        finally:
            while reader.read(PIECE):
                pass

    def _next(self) -> dict[str, Any] | None:
        line, end, rest = self._come.partition(b"\n")
        if not end and len(line) <= _LONGEST:
            return None
        self._come = rest
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise Nonsense(f"{line[:80]!r} is no document")
        return message

    def _read(self, size: int) -> bytes:
        while len(self._come) < size:
            self._come += self._more()
        piece, self._come = self._come[:size], self._come[size:]
        return piece

    def _more(self) -> bytes:
        piece = os.read(self.descriptor, PIECE)
        if not piece:
            raise EOFError("the other end is gone")
        return piece

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.descriptor, data) :]


class _Reader:
    """Reads a stream of pieces, wherever those begin and end."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._left = 0
        self._over = False

    def read(self, size: int) -> bytes:
        """Returns so many bytes; fewer where the stream ends."""
        read = b""
        while len(read) < size and not self._over:
            if not self._left:
                (self._left,) = _LENGTH.unpack(self._control._read(_LENGTH.size))
                self._over = self._left == 0
            part = self._control._read(min(self._left, size - len(read)))
            self._left -= len(part)
            read += part
        return read
