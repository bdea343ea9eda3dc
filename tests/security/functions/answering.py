"""Takes over the connection that its request came on, and writes there whatever it likes."""

import os
import socket
import time

from attempts import handle as handle


def _connection():
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            taken = socket.socket(fileno=os.dup(descriptor))
            taken.getpeername()
        except OSError:
            continue
        return taken
    raise LookupError("there is no connection")


def echo(word):
    """Answers as it should."""
    return word


def answer(pieces, then):
    """Writes pieces of bytes in place of an answer; then waits, leaves or closes."""
    connection = _connection()
    for piece in pieces:
        connection.sendall(piece.encode("latin-1"))
        time.sleep(0.01)
    if then == "leave":
        os._exit(0)
    if then == "close":
        connection.shutdown(socket.SHUT_RDWR)
    time.sleep(3600)


def flood(start, piece, times):
    """Writes the start of an answer, then the same piece many times."""
    connection = _connection()
    connection.sendall(start.encode("latin-1"))
    for _ in range(times):
        connection.sendall(piece.encode("latin-1"))
    time.sleep(3600)


def header(name, value):
    """Answers with a header of its choice, by the rules of the runtime."""
    return "answered", 200, {name: value}
