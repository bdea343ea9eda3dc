"""What a cell reaches: nothing but itself, all but this machine, or all that the machine does."""

from __future__ import annotations

import fcntl
import socket
import struct

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Clone

NONE = "none"
EGRESS = "egress"
HOST = "host"

_SET_FLAGS = 0x8914
_IFF_UP = 0x1


def enter(network: str, prepared: int | None = None) -> None:
    """Moves the process into the network of this name.

    ``none`` is a new namespace, whose loopback only those inside reach. It also has abstract unix sockets of its own.

    Args:
        network: one of the names above.
        prepared: a descriptor of the namespace of ``egress``, which somebody with more power has made.
    """
    if network == NONE:
        syscalls.unshare(Clone.NETWORK)
        enable_loopback()
    elif prepared is not None:
        syscalls.setns(prepared, Clone.NETWORK)


def enable_loopback() -> None:
    """Lets the processes of this network namespace reach each other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
