"""The lanes of this machine, as control asks them (see "The node's own HTTP interface" in the design)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog

from martlet.control.health import ASK_TIMEOUT, health_of
from martlet.errors import MartletError, Unavailable, every_error
from martlet.http.fetch import FetchError, fetch
from martlet.model import Revision

log = structlog.get_logger()

LOAD_MARGIN = 15.0

_KNOWN_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "request_id", "field"})


class Lanes:
    """All lanes together.

    A lane that does not answer is restarting: it will read the store anew, so what it would have been told is
    not lost, and it has no instances.

    Args:
        sockets: the private socket of each lane.
        load_timeout: seconds a function may take to load.
    """

    def __init__(self, sockets: Sequence[Path], load_timeout: float) -> None:
        self.sockets = list(sockets)
        self._load_timeout = load_timeout + LOAD_MARGIN

    async def sync(self, revision: int) -> None:
        """Returns once every living lane has seen the store at this store revision."""
        await self._tell_all("POST", "/_node/sync", {"revision": revision})

    async def load(self, revision: Revision, node: str | None = None) -> dict[str, Any]:
        """Starts an instance of a revision and keeps it; returns ``{"mode", "load_ms", "log"}``.

        Args:
            revision: what to load.
            node: the id of another machine that is to load it; None is this one.

        Raises:
            FunctionLoadFailed: the code does not load; ``extra`` says more.
            NoCapacity: there is no room to try.
            Unavailable: no lane answers, or not the other machine.
        """
        document = revision.model_dump(mode="json")
        target = "/_node/load" if node is None else f"/_node/at/{node}/load"
        for socket in self.sockets:
            try:
                status, body = await fetch(socket, "POST", target, document, timeout=self._load_timeout)
            except FetchError as error:
                log.warning("lane_unreachable", lane=socket.stem, error=str(error))
                continue
            loaded: dict[str, Any] = orjson.loads(body)
            if status != 200:
                raise _error(loaded)
            return loaded
        raise Unavailable("no lane answers; they may be restarting")

    async def health(self) -> dict[str, dict[str, Any] | None]:
        """Returns what each lane says of itself, by its name; None where it does not answer."""
        return await health_of(self.sockets)

    async def forget(self, function: str) -> None:
        """Deletes the logs, history and counters of a function."""
        await self._tell_all("DELETE", f"/_node/functions/{function}")

    async def _tell_all(self, method: str, target: str, document: Any = None) -> None:
        await asyncio.gather(*(self._tell(socket, method, target, document) for socket in self.sockets))

    async def _tell(self, socket: Path, method: str, target: str, document: Any) -> None:
        try:
            status, body = await fetch(socket, method, target, document, timeout=ASK_TIMEOUT)
        except FetchError as error:
            log.warning("lane_unreachable", lane=socket.stem, error=str(error))
            return
        if status >= 400:
            log.error("lane_refused", lane=socket.stem, target=target, status=status, answer=body[:500])


def _error(problem: dict[str, Any]) -> MartletError:
    """Returns the error that a lane's problem document describes."""
    kind = next((kind for kind in every_error() if kind.code == problem.get("code")), MartletError)
    extra = {name: value for name, value in problem.items() if name not in _KNOWN_MEMBERS}
    return kind(str(problem.get("detail") or ""), field=problem.get("field"), extra=extra)
