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

from martlet.control.health import ASK_TIMEOUT, health_of
from martlet.errors import MartletError, NotFound, Unavailable, every_error
from martlet.http.fetch import FetchError, fetch
from martlet.model import InstanceView, InvocationView, LogLine, NodeScaling, Revision

log = structlog.get_logger()

LOAD_MARGIN = 15.0

_INSTANCES = TypeAdapter(list[InstanceView])
_INVOCATIONS = TypeAdapter(list[InvocationView])


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
        await self._ask_all("POST", "/_node/sync", {"revision": revision})

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

    async def instances(self) -> list[InstanceView]:
        """Returns the living instances, the oldest first."""
        answers = await self._ask_all("GET", "/_node/instances")
        views = [view for answer in answers for view in _INSTANCES.validate_json(answer)]
        return sorted(views, key=lambda view: view.created)

    async def stop(self, instance: str) -> None:
        """Ends an instance, after what it runs. Raises `NotFound`."""
        target = f"/_node/instances/{quote(instance, safe='')}"
        stopping = (fetch(socket, "DELETE", target, timeout=self._load_timeout) for socket in self.sockets)
        answers = await asyncio.gather(*stopping, return_exceptions=True)
        if not any(isinstance(answer, tuple) and answer[0] == 204 for answer in answers):
            raise NotFound(f"there is no instance {instance!r}")

    async def stats(self) -> list[dict[str, Any]]:
        """Returns the counters of each living lane."""
        return [orjson.loads(answer) for answer in await self._ask_all("GET", "/_node/stats")]

    async def invocations(self, function: str, limit: int) -> list[InvocationView]:
        """Returns the latest invocations of a function, newest first."""
        answers = await self._ask_all("GET", f"/_node/invocations/{function}?limit={limit}")
        views = [view for answer in answers for view in _INVOCATIONS.validate_json(answer)]
        return sorted(views, key=lambda view: view.started, reverse=True)[:limit]

    async def scaling(self, function: str) -> list[NodeScaling]:
        """Returns why each lane has as many instances of a function as it has."""
        answers = await self._ask_all("GET", f"/_node/scaling/{function}")
        return [NodeScaling.model_validate_json(answer) for answer in answers]

    async def forget(self, function: str) -> None:
        """Deletes the logs, history and counters of a function."""
        await self._ask_all("DELETE", f"/_node/functions/{function}")

    async def logs_of(
        self, lane: Path, function: str, tail: int, request_id: str | None = None
    ) -> list[LogLine]:
        """Returns the last lines of a function on one lane, oldest first; none from a lane that does not answer."""
        answer = await self._ask(lane, "GET", f"/_node/logs/{function}?tail={tail}")
        return [LogLine.model_validate_json(line) for line in (answer or b"").splitlines()]

    async def follow(self, lane: Path, function: str, tail: int, since: float) -> AsyncIterator[LogLine]:
        """Yields the lines of a function on one lane, until the lane ends.

        Args:
            lane: its socket.
            function: whose lines.
            tail: how many of the past at most.
            since: only lines later than this, in seconds since the epoch.

        Raises:
            httpx2.TransportError: the lane does not answer, or went away.
        """
        query = urlencode({"tail": tail, "follow": 1, "since": since})
        transport = httpx2.AsyncHTTPTransport(uds=str(lane), verify=False)
        async with (
            httpx2.AsyncClient(transport=transport, timeout=None) as client,
            client.stream("GET", f"http://lane/_node/logs/{function}?{query}") as answer,
        ):
            async for line in answer.aiter_lines():
                yield LogLine.model_validate_json(line)

    async def _ask_all(self, method: str, target: str, document: Any = None) -> list[bytes]:
        """Returns the answers of the lanes that gave one."""
        asking = (self._ask(socket, method, target, document) for socket in self.sockets)
        return [answer for answer in await asyncio.gather(*asking) if answer is not None]

    async def _ask(self, socket: Path, method: str, target: str, document: Any = None) -> bytes | None:
        try:
            status, body = await fetch(socket, method, target, document, timeout=ASK_TIMEOUT)
        except FetchError as error:
            log.warning("lane_unreachable", lane=socket.stem, error=str(error))
            return None
        if status >= 400:
            log.error("lane_refused", lane=socket.stem, target=target, status=status, answer=body[:500])
            return None
        return body


def _error(problem: dict[str, Any]) -> MartletError:
    """Returns the error that a lane's problem document describes."""
    kind = next((kind for kind in every_error() if kind.code == problem.get("code")), MartletError)
    extra = {name: value for name, value in problem.items() if name not in _KNOWN_MEMBERS}
    return kind(str(problem.get("detail") or ""), field=problem.get("field"), extra=extra)
