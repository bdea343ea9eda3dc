"""A program that is an ordinary server on a TCP port, and knows nothing of Martlet."""

from __future__ import annotations

import errno
import select
import socket
import time

from . import answer
from .answer import Answer
from .child import Child

_USUAL = 3000
_HOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02


def usual() -> int:
    """Returns the port that programs are given: 3000, or, where the sandbox shares a network, one that is free."""
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", _USUAL))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            attempt.bind(("127.0.0.1", 0))
        number: int = attempt.getsockname()[1]
        return number


def named(text: str) -> int:
    """Returns the port that a variable names.

    Raises:
        OSError: it names none.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise OSError(errno.EINVAL, f"the variable PORT is {text!r}, which is no port")
    return int(text)


def connect(port: int) -> socket.socket:
    """Returns a connection to whoever listens on a port. Raises OSError."""
    for family, host in _HOSTS:
        end = socket.socket(family)
        try:
            end.connect((host, port))
        except OSError as error:
            end.close()
            refused = error
        else:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return end
    raise refused


def hear(child: Child, port: int) -> Answer:
    """Waits until the program takes connections; or says on its descriptor for that why it will not, or ends."""
    began, pause = time.monotonic(), _FIRST_PAUSE
    events = select.poll()
    events.register(child.answer, select.POLLIN)
    events.register(child.end, select.POLLIN)
    while True:
        try:
            connect(port).close()
        except OSError:
            pass
        else:
            return 200, {"mode": "http", "load_ms": round((time.monotonic() - began) * 1000, 3)}
        ready = {descriptor for descriptor, _ in events.poll(pause * 1000)}
        if child.answer in ready:
            said = answer.read_line(child)
            if said is not None:
                return answer.judge(said)
            events.unregister(child.answer)
        elif child.end in ready:
            return answer.crashed(child)
        pause = min(2 * pause, _LONGEST_PAUSE)
