"""What a guest practises with, so that nobody waits while what runs for the first time is translated.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from martlet.microvm import view
from martlet.microvm.control import Control
from martlet.sandbox import root

HEALTH = b"GET /_martlet/health HTTP/1.1\r\nhost: martlet\r\nconnection: close\r\n\r\n"
OPEN_FILES = 1024
"""Descriptors that a cell may have which becomes the example of its runtime."""
_EXAMPLE = {
    "function": "",
    "revision": 1,
    "code": root.FUNCTION,
    "dependencies": None,
    "handler": "handle",
    "environment": {},
    "concurrency": 1,
    "max_body": 1024,
    "template": False,
}
_HEAD = b"POST %b HTTP/1.1\r\nhost: martlet\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_FOLDER = f"{view.RUN}/practice"
_LINE = 4096


def connect(at: str) -> socket.socket:
    """Returns a connection to the cell at a path. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(at)
    except OSError:
        connection.close()
        raise
    return connection


def ask_health(at: str) -> None:
    """Returns once the cell at a path waits for its code, and has gone the way of a request."""
    with connect(at) as connection:
        connection.sendall(HEALTH)
        while connection.recv(_LINE):
            pass


def live(at: str) -> None:
    """Has the cell at a path become the example of its runtime, whose code is there, and answer. Raises OSError."""
    with connect(at) as connection:
        for target, document in (("/_martlet/specialise", _EXAMPLE), ("/", {}), ("/", {})):
            _ask(connection, target, document)


def stream() -> bytes:
    """Makes the folder that `take` fills. Returns a small folder as it comes from a warden."""
    os.mkdir(_FOLDER)
    Path(_FOLDER, "handler").write_text("nothing")
    reader, writer = os.pipe()
    Control(writer).send_folder(_FOLDER)
    os.close(writer)
    os.unlink(f"{_FOLDER}/handler")
    with open(reader, "rb") as sent:
        return sent.read()


def take(sent: bytes) -> None:
    """Takes such a folder, reads what is in it, and removes that."""
    reader, writer = os.pipe()
    os.write(writer, sent)
    os.close(writer)
    Control(reader).receive_folder(_FOLDER)
    os.close(reader)
    for name in os.listdir(_FOLDER):
        Path(_FOLDER, name).read_bytes()
        os.unlink(f"{_FOLDER}/{name}")


def _ask(connection: socket.socket, target: str, document: dict[str, Any]) -> None:
    """Sends a document to a cell, and returns once all of the answer has come."""
    body = json.dumps(document).encode()
    connection.sendall(_HEAD % (target.encode(), len(body), body))
    said = b""
    while not said.endswith(b"}"):  # of the only object that it is
        piece = connection.recv(_LINE)
        if not piece:
            raise OSError(f"a cell does not answer {target}: {said!r}")
        said += piece
