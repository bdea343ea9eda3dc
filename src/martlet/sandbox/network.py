"""What a cell reaches: nothing but itself, all but this machine, or all that the machine does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from martlet.sandbox import syscalls
from martlet.sandbox.script import Script, Slot
from martlet.sandbox.syscalls import Clone

NONE = "none"
EGRESS = "egress"
HOST = "host"

_SET_FLAGS = 0x8914
_IFF_UP = 0x1
_UP = struct.pack("16sh22x", b"lo", _IFF_UP)


def enter(network: str, prepared: int | None = None) -> None:
    """Moves the process into the network of this name.

    ``none`` is a new namespace, whose loopback only those inside reach. It also has abstract unix sockets of its own.

    Args:
        network: one of the names above.
        prepared: a descriptor of the namespace: that of ``egress``, which somebody with more power has made, or a new
            one for ``none`` that was made ahead (`Spare`).
    """
    if prepared is not None:
        syscalls.setns(prepared, Clone.NETWORK)
    elif network == NONE:
        syscalls.unshare(Clone.NETWORK)
        enable_loopback()


def enter_by(script: Script, network: str, prepared: Slot | None) -> None:
    """Writes down what `enter` does."""
    if prepared is not None:
        script.setns(prepared, Clone.NETWORK)
    elif network == NONE:
        control = Slot()
        script.unshare(Clone.NETWORK)
        script.call("socket", socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0, into=control)
        script.call("ioctl", control, _SET_FLAGS, _UP)
        script.call("close", control)


class Spare:
    """A namespace for ``none``, made ahead: to make one takes a millisecond, to join it a tenth of that.

    Who makes it comes home to a namespace that only root on the host may enter.

    Attributes:
        wanted: whether there is none, and somebody has needed it.
    """

    def __init__(self) -> None:
        self._namespaces = os.open("/proc/self/ns", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._home = self._open()
        self._spare: int | None = None
        self.wanted = False

    def take(self) -> int | None:
        """Returns a descriptor of it, for the caller to close; None where there is none. Another is wanted then."""
        spare, self._spare, self.wanted = self._spare, None, True
        return spare

    def make(self) -> None:
        """Makes one, which is not wanted any more then; without one, who needs it makes its own.

        Raises:
            OSError: this process could not come home.
        """
        self.wanted = False
        try:
            syscalls.unshare(Clone.NETWORK)
        except OSError:
            return
        try:
            with contextlib.suppress(OSError):
                enable_loopback()
                self._spare = self._open()
        finally:
            syscalls.setns(self._home, Clone.NETWORK)

    def _open(self) -> int:
        return os.open("net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._namespaces)


def enable_loopback() -> None:
    """Lets the processes of this network namespace reach each other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SET_FLAGS, _UP)
