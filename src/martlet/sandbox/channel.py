"""The talk between a lane and its zygote: one packet a message, JSON, descriptors beside it.

The zygote listens on a unix socket in the lane's run directory, which only the platform's own user may enter. Both
ends make sure nevertheless that the kernel names that user for the other.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MAX_PACKET = 64 * 1024
_ROOM = socket.CMSG_SPACE(16 * array("i").itemsize)
"""For as many descriptors as a message may have."""

_CREDENTIALS = struct.Struct("3i")


def listen(path: Path) -> socket.socket:
    """Returns a listener at ``path``, in place of what was there. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """Returns a channel to whoever listens at ``path``; it does not block.

    Raises:
        OSError: nobody does, or somebody who is another user.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.setblocking(False)
    try:
        end.connect(str(path))
        _refuse_strangers(end)
    except OSError:
        end.close()
        raise
    return end


def accept(listener: socket.socket) -> socket.socket:
    """Returns a channel to whoever has connected.

    Raises:
        OSError: nobody has, or somebody who is another user.
    """
    end, _ = listener.accept()
    try:
        _refuse_strangers(end)
    except OSError:
        end.close()
        raise
    return end


def send(end: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Sends one message.

    Raises:
        BlockingIOError: the end does not block and the channel is full.
        OSError: the other end is gone.
    """
    socket.send_fds(end, [json.dumps(message).encode()], list(descriptors))


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns the next message with its descriptors, or None when the other end is gone.

    Raises:
        BlockingIOError: the end does not block and there is none yet.
    """
    try:
        # `recv_fds` overlooks the flag by which descriptors are not inherited.
        packet, ancillary, _, _ = end.recvmsg(_MAX_PACKET, _ROOM, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    descriptors = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) // descriptors.itemsize * descriptors.itemsize])
    if not packet:
        return None
    message: dict[str, Any] = json.loads(packet)
    return message, descriptors.tolist()


def _refuse_strangers(end: socket.socket) -> None:
    _, user, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if user != os.geteuid():
        raise PermissionError(f"the other end of the channel is user {user}")
