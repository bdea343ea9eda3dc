"""What a guest practises with, so that nobody waits while what runs for the first time is translated.

Standard library only, and `martlet.sandbox`.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from martlet.microvm import folders, view
from martlet.microvm.control import Control

HEALTH = b"GET /_martlet/health HTTP/1.1\r\nhost: martlet\r\nconnection: close\r\n\r\n"
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


def stream() -> bytes:
    """Makes the folder that `take` fills. Returns a small folder as it comes from a warden."""
    os.mkdir(_FOLDER)
    Path(_FOLDER, "handler").write_text("nothing")
    reader, writer = os.pipe()
    Control(writer).send_folder(folders.pack(_FOLDER))
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
