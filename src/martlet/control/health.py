"""How the lanes of this machine are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from martlet.http.fetch import FetchError, fetch

ASK_TIMEOUT = 5.0
"""Seconds a lane may take for an answer; one that takes longer is treated like one that is restarting."""


async def health_of(sockets: Sequence[Path]) -> dict[str, dict[str, Any] | None]:
    """Returns what each lane says of itself, by its name; None where it does not answer.

    Args:
        sockets: the private socket of each lane.
    """
    answers = await asyncio.gather(*map(_ask, sockets))
    return {socket.stem: answer for socket, answer in zip(sockets, answers, strict=True)}


async def _ask(socket: Path) -> dict[str, Any] | None:
    try:
        status, body = await fetch(socket, "GET", "/_node/health", timeout=ASK_TIMEOUT)
    except FetchError:
        return None
    said: dict[str, Any] = orjson.loads(body)
    return said if status == 200 else None
