"""The lanes of this machine, as control asks them (see "The node's own HTTP interface" in the design)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import orjson
import structlog
from pydantic import TypeAdapter

from martlet.errors import MartletError, NotFound, Unavailable, every_error
from martlet.http.fetch import FetchError, fetch
from martlet.model import InstanceView, InvocationView, LogLine, Revision

log = structlog.get_logger()

ASK_TIMEOUT = 5.0
"""Seconds a lane may take for an answer; one that takes longer is treated like one that is restarting."""
LOAD_MARGIN = 15.0

_INSTANCES = TypeAdapter(list[InstanceView])
_INVOCATIONS = TypeAdapter(list[InvocationView])


class LaneProblem(MartletError):
    """A lane answered with a problem; ``document`` is what it said."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail", "")))
        self.document = document


class Lanes:
    """All lanes together. A lane that does not answer is restarting: it will read the store anew, so what it would
    have been told is not lost, and it has no instances.

    Args:
        sockets: the private socket of each lane.
        load_timeout: seconds a function may take to load.
    """

    def __init__(self, sockets: Sequence[Path], load_timeout: float) -> None:
        self._sockets = list(sockets)
        self._load_timeout = load_timeout + LOAD_MARGIN

    async def sync(self, revision: int) -> None:
        """Returns once every living lane has seen the store at this store revision."""
        await self._ask_all("POST", "/_node/sync", {"revision": revision})

    async def load(self, revision: Revision) -> dict[str, Any]:
        """Starts an instance of a revision and keeps it; returns ``{"mode", "load_ms", "log"}``.

        Raises:
            LaneProblem: the code does not load, or there is no room.
            Unavailable: no lane answers.
        """
        document = revision.model_dump(mode="json")
        for socket in self._sockets:
            try:
                answer = await self._ask(socket, "POST", "/_node/load", document, timeout=self._load_timeout)
            except FetchError as error:
                log.warning("lane_unreachable", lane=socket.stem, error=str(error))
            else:
                loaded: dict[str, Any] = orjson.loads(answer)
                return loaded
        raise Unavailable("no lane answers; they may be restarting")
