"""How requests reach a program."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from . import answer, port, relay, slots, stdio, waiting
from .answer import Answer
from .child import LISTENER, SPECIFICATION, Child, Fork

Start = Callable[[], Child]
"""Starts the program once more, and gives it its specification."""


class Way(Protocol):
    """One of the ways. It is made before there is code.

    Attributes:
        variables: what the program gets in its environment for it.
    """

    variables: Mapping[str, str]

    def start(self, command: list[str], environment: Mapping[str, str], fork: Fork | None) -> Child:
        """Starts the program. Raises OSError."""

    def hear(self, child: Child) -> Answer:
        """Waits until the program has loaded the code, or cannot."""

    def serve(self, child: Child, specification: Mapping[str, Any], start: Start) -> int:
        """Serves until the program has ended. Returns the exit code that says how."""


class ByDescriptor:
    """The program accepts from the listener itself."""

    def __init__(self, listener: socket.socket) -> None:
        self.variables: Mapping[str, str] = {}
        self._listener = listener

    def start(self, command: list[str], environment: Mapping[str, str], fork: Fork | None) -> Child:
        """See `Way`."""
        return Child.start(command, environment, {LISTENER: self._listener.fileno()}, fork=fork)

    def hear(self, child: Child) -> Answer:
        """See `Way`."""
        return answer.hear(child)

    def serve(self, child: Child, specification: Mapping[str, Any], start: Start) -> int:
        """See `Way`."""
        self._listener.close()
        return waiting.wait(child)


class BySocket:
    """The program listens on a unix socket of its own. Once it does, the name is taken away and the socket held by
    descriptor: where ``/tmp`` is that of the host, nothing is left there however all this ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._path = f"/tmp/.martlet-{secrets.token_hex(8)}"  # noqa: S108  (the sandbox's own)
        self.variables: Mapping[str, str] = {"MARTLET_SOCKET": self._path}
        self._listener = listener
        self._held: int | None = None

    def start(self, command: list[str], environment: Mapping[str, str], fork: Fork | None) -> Child:
        """See `Way`."""
        return Child.start(command, environment, {}, fork=fork)

    def hear(self, child: Child) -> Answer:
        """See `Way`."""
        try:
            return answer.hear(child)
        finally:
            with suppress(OSError):  # a program that does not listen is not reached
                self._held = os.open(self._path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                os.unlink(self._path)

    def serve(self, child: Child, specification: Mapping[str, Any], start: Start) -> int:
        """See `Way`."""
        return relay.Relay(self._listener, child, self._connect).run()

    def _connect(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(self._path if self._held is None else f"/proc/self/fd/{self._held}")
        except OSError:
            end.close()
            raise
        return end


class ByPort:
    """The program is any server, on a TCP port of the sandbox's own loopback."""

    def __init__(self, listener: socket.socket) -> None:
        self.variables: Mapping[str, str] = {"PORT": str(port.usual())}
        self._listener = listener
        self._port = 0

    def start(self, command: list[str], environment: Mapping[str, str], fork: Fork | None) -> Child:
        """See `Way`."""
        self._port = port.named(environment["PORT"])
        return Child.start(command, environment, {}, fork=fork)

    def hear(self, child: Child) -> Answer:
        """See `Way`."""
        return port.hear(child, self._port)

    def serve(self, child: Child, specification: Mapping[str, Any], start: Start) -> int:
        """See `Way`."""
        return relay.Relay(self._listener, child, lambda: port.connect(self._port), is_shim=False).run()


class ByStdio:
    """The program serves one request after the other on stdin and stdout, or what else ``make`` gives it for that."""

    def __init__(self, listener: socket.socket, make: Callable[[], stdio.Ends] = stdio.Pipes) -> None:
        self.variables: Mapping[str, str] = {}
        self._listener = listener
        self._make = make
        self._ends: dict[int, stdio.Ends] = {}

    def start(self, command: list[str], environment: Mapping[str, str], fork: Fork | None) -> Child:
        """See `Way`."""
        ends = self._make()
        try:
            child = Child.start(command, environment, ends.given, told_at=SPECIFICATION, fork=fork)
        finally:
            ends.let_go()
        self._ends[child.pid] = ends
        return child

    def hear(self, child: Child) -> Answer:
        """See `Way`."""
        return answer.hear(child)

    def serve(self, child: Child, specification: Mapping[str, Any], start: Start) -> int:
        """See `Way`."""

        def another() -> stdio.Worker:
            child = start()
            status, said = self.hear(child)
            if status != 200:
                raise OSError(f"another process did not load the code: {said}")
            return stdio.Worker(child, self._ends[child.pid])

        first = stdio.Worker(child, self._ends[child.pid])
        concurrency, max_body = specification["concurrency"], specification["max_body"]
        return stdio.Server(self._listener, first, another, concurrency, max_body).run()


WAYS: dict[str, Callable[[socket.socket], Way]] = {
    "descriptor": ByDescriptor,
    "socket": BySocket,
    "port": ByPort,
    "stdio": ByStdio,
    "assignments": partial(ByStdio, make=slots.Slots),
}
