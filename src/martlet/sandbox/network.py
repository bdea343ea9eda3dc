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
        _bring_up("lo")
    elif prepared is not None:
        syscalls.setns(prepared, Clone.NETWORK)


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, struct.pack("16sh22x", interface.encode(), _IFF_UP))
