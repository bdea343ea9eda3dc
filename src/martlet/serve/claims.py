"""What a platform has for itself alone: its data folder and its ports."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path
from typing import TextIO

from martlet.errors import MartletError
from martlet.model import Role
from martlet.settings import Settings


class Busy(MartletError):
    """The platform cannot start because something else has what it needs."""

    code, title = "busy", "Something else has what the platform needs"


def lock(data: Path) -> TextIO:
    """Claims the data folder; it is free again when the file that is returned is closed. Raises `Busy`."""
    held = (data / "lock").open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Busy(
            f"another Martlet runs on {data}: stop it, or use another folder (--data)",
            field="system.function_storage_path",
        ) from None
    return held


def reserve_ports(settings: Settings) -> tuple[list[socket.socket], Settings]:
    """Finds out whether the ports are free, holds them for the lanes, and returns the settings with what is settled.

    Raises:
        Busy: one is not free.
    """
    system, peer = settings.system, settings.system.peer_address
    port, placeholders = system.api_gateway_port, []
    if Role.GATEWAY in system.roles:
        port, placeholder = _reserve(system.host, port, "system.api_gateway_port", "--port or --host")
        placeholders.append(placeholder)
    if peer is not None:
        placeholders.append(_reserve(peer.host, peer.port, "system.peer_address", "system.peer_address")[1])
    # Lanes are counted here once: a lane that is kept on one core sees only that one.
    update = {"api_gateway_port": port, "lanes": settings.lane_count}
    return placeholders, settings.model_copy(update={"system": system.model_copy(update=update)})


def _reserve(host: str, port: int, field: str, remedy: str) -> tuple[int, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
        placeholder = socket.socket(family)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        placeholder.bind((host, port))
    except OSError as error:
        raise Busy(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {remedy}", field=field
        ) from None
    return port, placeholder
