"""What the guest of a machine that others are forked from goes through before: all that a clone of it will be told.

Another cell becomes the example of the runtime and answers requests, by the ways that code and requests come to a
function; then the cell that waits is asked for its health. Standard library only.
"""

from __future__ import annotations

import json
import re
import select
import socket
from dataclasses import dataclass
from typing import Any

from martlet.microvm import folders
from martlet.microvm.control import Control
from martlet.microvm.instructions import equip
from martlet.microvm.links import Interests, Link
from martlet.microvm.practice import HEALTH
from martlet.sandbox import root
from martlet.sandbox.inside import CONFINEMENT

_DOCUMENT: dict[str, Any] = {
    "function": "example",
    "revision": 1,
    "code": root.FUNCTION,
    "dependencies": None,
    "handler": "handle",
    "environment": {},
    "concurrency": 1,
    "max_body": 20 * 1024 * 1024,
    "template": False,
}
_CONFINEMENT = {
    "code": "example",
    "dependencies": None,
    "hostname": "localhost",
    "open_files": 1024,
    "every_cpu": False,
}
_HEAD = b"%b %b HTTP/1.1\r\nhost: martlet\r\ncontent-length: %d\r\n"
_SENDER = b"user-agent: example/1.0\r\naccept: */*\r\nx-request-id: 5d41402abc4b2a76b9719d911017c592\r\n"
_JSON = b"content-type: application/json\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Example:
    """A function of a runtime: its files by their names, and the limits of most functions, as `control` has them."""

    files: dict[str, str]
    limits: dict[str, int]


class Guest:
    """How a guest is reached whose machine has no warden.

    Args:
        control: the descriptor of the port that leads to its agent.
        link: that of one of its links.
        patience: seconds that each answer may take.
    """

    def __init__(self, control: int, link: int, patience: float) -> None:
        self.control = Control(control)
        self._interests = Interests()
        self._link = Link(link, self._interests)
        self._patience = patience

    def hear(self, event: str) -> dict[str, Any]:
        """Returns what its agent says next. Raises OSError where that is something else, or does not come in time."""
        if not select.select([self.control.descriptor], [], [], self._patience)[0]:
            raise OSError("the guest does not answer")
        said = self.control.receive()
        if said.get("event") != event:
            raise OSError(f"the guest cannot rehearse: {said}")
        return said

    def converse(self, *requests: bytes) -> None:
        """Sends the cell requests over one connection, each when the one before has been answered. Raises OSError."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            self._link.carry(theirs)
            for request in requests:
                ours.sendall(request)
                said = b""
                while not _is_whole(said):
                    self._go_on()
                    said += _received(ours)
            ours.shutdown(socket.SHUT_WR)
            while not self._link.free:
                self._go_on()

    def _go_on(self) -> None:
        happened = self._interests.events.poll(self._patience)
        if not happened:
            raise OSError("the guest does not answer")
        for descriptor, event in happened:
            self._link.serve(descriptor, event)


def rehearse(guest: Guest) -> Example | None:
    """Has a guest go the ways of a clone. Returns what its cells can become, if there is an example.

    Raises:
        OSError: the guest does something else, or nothing.
        EOFError, Nonsense, PortGone: likewise.
    """
    guest.control.send(op="rehearse")
    said = guest.hear("rehearses")
    example = None if said["example"] is None else Example(said["example"], said["limits"])
    if example is not None:
        live(guest, example)
        guest.control.send(op="rest")
        guest.hear("rests")
    if said["cell"]:
        guest.converse(HEALTH)
    return example


def live(guest: Guest, example: Example) -> None:
    """Has the cell of a guest become an example, and answer. Raises as `rehearse`."""
    limits = example.limits
    document = _DOCUMENT | {"memory": limits["memory"], CONFINEMENT: _CONFINEMENT | limits}
    files = {name: text.encode() for name, text in example.files.items()}
    equip(guest.control, document, None, folders.pack_files(files))
    guest.converse(
        _request(
            b"POST", b"/_martlet/specialise", json.dumps(document, separators=(",", ":")).encode(), _JSON
        ),
        _request(b"GET", b"/", b"", _SENDER),
        _request(b"POST", b"/items?of=example", b'{"name": "Martlet"}', _JSON + _SENDER),
    )
    guest.hear("equipped")


def _request(method: bytes, target: bytes, body: bytes, fields: bytes) -> bytes:
    return _HEAD % (method, target, len(body)) + fields + b"\r\n" + body


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_LINE)
    except BlockingIOError:
        return b""


def _is_whole(said: bytes) -> bool:
    """Whether all of a response is there."""
    head, _, body = said.partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return length is not None and len(body) >= int(length[1])
