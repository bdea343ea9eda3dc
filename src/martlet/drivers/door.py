"""The door of a container: a folder that it shares with the lane, for as long as its socket takes to come through."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from martlet.drivers import contract
from martlet.drivers.driver import DriverError
from martlet.http.conversation import Conversation
from martlet.http.fetch import FetchError
from martlet.sandbox.inside import SOCKET

_ASK_AGAIN_SECONDS = 0.001


def make(door: Path, identity: int) -> None:
    """Makes the door of a container whose user has this id. Raises OSError."""
    door.mkdir(mode=0o700)
    os.chown(door, identity, identity)


async def greet(door: Path, socket: str, patience: float, over: Callable[[], bool]) -> Conversation:
    """Asks until the container answers, then moves its socket out of its sight, and closes the door behind it.

    Args:
        door: the folder.
        socket: where the socket is to be.
        patience: seconds that it may take.
        over: whether the container has ended.

    Returns:
        The connection over which it has answered.

    Raises:
        DriverError: it ends, does not answer in time, or is not well.
    """
    loop, made = asyncio.get_running_loop(), door / SOCKET
    deadline = loop.time() + patience
    while (conversation := await _answer(made, patience)) is None:
        if over():
            raise DriverError("its first process ended")
        if loop.time() > deadline:
            raise DriverError(f"it has not answered within {patience:g} s")
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    made.rename(socket)
    os.chown(door, 0, 0)
    os.chmod(door, 0o711)  # noqa: S103  (what is in it has gone through)
    return conversation


async def _answer(socket: Path, patience: float) -> Conversation | None:
    if not os.access(socket, os.F_OK):
        return None
    try:
        return await contract.greet(str(socket), patience)
    except FetchError:  # it is about to listen, or gone
        return None
