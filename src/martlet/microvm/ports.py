"""The ports of a guest: byte channels by their names, by whichever device there is.

A serial device has ports that are always open, also in every clone. A vsock has connections, which end where a machine
is saved: so in a clone they are taken anew, and have the descriptors that they had before.

Standard library only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from martlet.microvm.control import VSOCK_PORTS

_SERIAL = Path("/sys/class/virtio-ports")


class Ports(Protocol):
    """See the module."""

    descriptors: dict[str, int]

    def renew(self) -> bool:
        """Returns once the ports are those of the machine that this is now: whether they are others than before."""


class SerialPorts:
    """Those of a virtio-serial device."""

    def __init__(self, ports: Path = _SERIAL) -> None:
        names = {(port / "name").read_text().strip(): port.name for port in ports.iterdir()}
        self.descriptors = {
            name: os.open(f"/dev/{port}", os.O_RDWR | os.O_CLOEXEC) for name, port in names.items()
        }

    def renew(self) -> bool:
        """Does nothing: they last."""
        return False


class ConnectedPorts:
    """Connections that the host makes to listening sockets, one for each name.

    Args:
        listeners: the sockets.
    """

    def __init__(self, listeners: Mapping[str, socket.socket]) -> None:
        self._listeners = listeners
        self.descriptors = {name: listener.accept()[0].detach() for name, listener in listeners.items()}

    def renew(self) -> bool:
        """Takes the connections of the host that has the machine now."""
        for name, listener in self._listeners.items():
            connection, _ = listener.accept()
            os.dup2(connection.fileno(), self.descriptors[name], inheritable=False)
            connection.close()
        return True


def open_ports() -> Ports:
    """Returns the ports of this guest; waits for the host where they are connections."""
    if _SERIAL.is_dir() and any(_SERIAL.iterdir()):
        return SerialPorts()
    return ConnectedPorts({name: _listen(port) for name, port in VSOCK_PORTS.items()})


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_VSOCK)
    listener.bind((socket.VMADDR_CID_ANY, port))
    listener.listen()
    return listener
