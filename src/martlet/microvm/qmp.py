"""QEMU's machine protocol: one JSON document on each line."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

_PIECE = 64 * 1024


class QmpError(OSError):
    """QEMU refused a command, or has ended."""


class Qmp:
    """A client of one QEMU, which waits for each answer.

    Args:
        connection: leads to it. Its timeout is what every answer may take.
        greeted: whether it has greeted already.

    Raises:
        QmpError: nothing greets.
    """

    def __init__(self, connection: socket.socket, *, greeted: bool = False) -> None:
        self._connection = connection
        self._come = b""
        self._events: list[str] = []
        if not greeted:
            self._read()
            self.execute("qmp_capabilities")

    def give(self, name: str, descriptor: int) -> None:
        """Gives QEMU a descriptor, which its commands know by a name. Raises `QmpError`."""
        self.execute("getfd", [descriptor], fdname=name)

    def execute(self, command: str, descriptors: Sequence[int] = (), /, **arguments: Any) -> Any:
        """Returns what a command returns, with which ``descriptors`` go. Raises `QmpError`."""
        document = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        try:
            socket.send_fds(self._connection, [json.dumps(document).encode() + b"\n"], descriptors)
        except OSError as error:
            raise QmpError(f"QEMU has ended: {error}") from None
        while True:
            answer = self._read()
            if "error" in answer:
                raise QmpError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
            if "return" in answer:
                return answer["return"]
            self._events.append(answer.get("event", ""))

    def wait(self, event: str) -> None:
        """Returns once an event of this name has come, which may have been before. Raises `QmpError`."""
        while event not in self._events:
            self._events.append(self._read().get("event", ""))
        self._events.remove(event)

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._come:
            try:
                piece = self._connection.recv(_PIECE)
            except ConnectionResetError:
                piece = b""
            except OSError as error:
                raise QmpError(f"QEMU does not answer: {error}") from None
            if not piece:
                raise QmpError("QEMU has ended")
            self._come += piece
        line, _, self._come = self._come.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document
