"""The talk between a lane and its zygote: one packet a message, JSON, descriptors beside it."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

_MAX_PACKET = 64 * 1024
_MAX_DESCRIPTORS = 16


def pair() -> tuple[socket.socket, socket.socket]:
    """Returns the two ends of a new channel."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


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
        received = socket.recv_fds(end, _MAX_PACKET, _MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    packet, descriptors = received[:2]
    if not packet:
        return None
    message: dict[str, Any] = json.loads(packet)
    return message, descriptors
