"""The lanes of all machines, as control asks them for what people want to see of the whole cluster.

Other machines are asked by a lane of this one, which has the connections, all at once and with a deadline. What a
machine has that does not answer is left out, and the answer names the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import httpx2
import orjson
import structlog
from pydantic import TypeAdapter

from martlet.control.health import ASK_TIMEOUT
from martlet.control.shelves import NAME, LaneName, Shelves
from martlet.errors import NotFound, Unavailable
from martlet.http.fetch import FetchError, fetch
from martlet.model import InstanceView, InvocationView, LogLine, NodeScaling
from martlet.storage.log_shelf import ShelfError
from martlet.storage.registry import RegistryView

log = structlog.get_logger()

MISSING_HEADER = "x-faas-missing"
"""Names the machines that an answer lacks, with commas between them."""

STOP_TIMEOUT = 60.0
"""Seconds that an instance may take to end what it runs, when it is stopped."""

_INSTANCES = TypeAdapter(list[InstanceView])
_INVOCATIONS = TypeAdapter(list[InvocationView])

Thing = TypeVar("Thing")


class Lane(NamedTuple):
    """A lane of a machine, and how it is asked: by any of these sockets, with targets that begin like this."""

    machine: str
    name: str
    sockets: tuple[Path, ...]
    base: str = "/_node"


class Found(NamedTuple, Generic[Thing]):
    """What was found, and the ids of the machines that have not said what they have."""

    things: list[Thing]
    missing: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer with these things."""
        return {MISSING_HEADER: ", ".join(self.missing)} if self.missing else {}


class Machines:
    """See the module.

    Args:
        sockets: the private sockets of the lanes of this machine.
        view: where the others are known.
        own: the id of this machine.
        clustered: whether there may be others: then a lane's name does not say which it is.
        shelves: what lanes that do not answer have put aside.

    Attributes:
        own: the id of this machine.
    """

    def __init__(
        self, sockets: Sequence[Path], view: RegistryView, own: str, clustered: bool, shelves: Shelves
    ) -> None:
        self._sockets = tuple(sockets)
        self._view = view
        self.own = own
        self._clustered = clustered
        self._shelves = shelves

    @property
    def lanes(self) -> list[Lane]:
        """The lanes of all machines that are alive, as far as is known."""
        lanes = [Lane(self.own, socket.stem, (socket,)) for socket in self._sockets]
        for node in self._view.nodes.values():
            if node.id != self.own:
                lanes += [
                    Lane(node.id, lane.name, self._sockets, f"/_node/at/{node.id}/{lane.name}")
                    for lane in node.lanes
                ]
        return lanes

    async def instances(self) -> Found[InstanceView]:
        """Returns the living instances, the oldest first."""
        answers, missing = await self._ask_all("/instances")
        views = [
            view.model_copy(update={"node": self._named(lane, view.node)})
            for lane, answer in answers
            for view in _INSTANCES.validate_json(answer, extra="ignore")
        ]
        return Found(sorted(views, key=lambda view: view.created), missing)

    async def stop(self, instance: str, sees: Callable[[str], bool]) -> None:
        """Ends an instance, after what it runs.

        Args:
            instance: its id.
            sees: whether an instance of a function may be found.

        Raises:
            NotFound: no machine has it.
            Unavailable: a machine that does not answer may have it, or it runs something still.
        """
        answers, missing = await self._ask_all("/instances")
        for lane, answer in answers:
            if any(
                view.id == instance and sees(view.function)
                for view in _INSTANCES.validate_json(answer, extra="ignore")
            ):
                target = f"/instances/{quote(instance, safe='')}"
                stopped = await self._fetch(lane, "DELETE", target, STOP_TIMEOUT)
                if stopped is None:
                    raise Unavailable(f"the instance {instance!r} has not ended yet: it runs something still")
                if stopped[0] == 204:
                    return
        if missing:
            raise Unavailable(
                f"no machine that answers has an instance {instance!r}; {', '.join(missing)} does not answer"
            )
        raise NotFound(f"there is no instance {instance!r}")

    async def stats(self, machine: str | None = None) -> Found[dict[str, Any]]:
        """Returns the counters of each living lane, of one machine or of all."""
        answers, missing = await self._ask_all("/stats", machine)
        return Found([orjson.loads(answer) for _, answer in answers], missing)

    async def invocations(self, function: str, limit: int) -> Found[InvocationView]:
        """Returns the latest invocations of a function, newest first."""
        answers, missing = await self._ask_all(f"/invocations/{function}?limit={limit}")
        views = [view for _, answer in answers for view in _INVOCATIONS.validate_json(answer, extra="ignore")]
        try:
            views += await self._shelves.invocations(function, _names(answers))
        except ShelfError as error:
            missing = _without_shelves(missing, error)
        return Found(sorted(views, key=lambda view: view.started, reverse=True)[:limit], missing)

    async def scaling(self, function: str) -> Found[NodeScaling]:
        """Returns why each lane has as many instances of a function as it has."""
        answers, missing = await self._ask_all(f"/scaling/{function}")
        return Found(
            [self._named_scaling(lane, NodeScaling.read(answer)) for lane, answer in answers],
            missing,
        )

    async def logs(self, function: str, tail: int) -> Found[tuple[Lane, list[LogLine]]]:
        """Returns the last lines of a function on each lane, oldest first; those of lanes that are gone, too, where
        they have put them aside."""
        answers, missing = await self._ask_all(f"/logs/{function}?tail={tail}")
        found = [(lane, [LogLine.read(line) for line in answer.splitlines()]) for lane, answer in answers]
        try:
            known = {lane[:2]: lane for lane in self.lanes}
            for name, lines in await self._shelves.logs(function, _names(answers), tail):
                found.append((known.get(name, Lane(*name, ())), lines))
        except ShelfError as error:
            missing = _without_shelves(missing, error)
        return Found(found, missing)

    @asynccontextmanager
    async def following(
        self, lane: Lane, function: str, tail: int, since: float
    ) -> AsyncIterator[AsyncIterator[LogLine]]:
        """Gives the lines of a function on one lane, as they come, once the lane has answered.

        Args:
            lane: one of `lanes`.
            function: whose lines.
            tail: how many of the past at most.
            since: only lines later than this, in seconds since the epoch.

        Raises:
            httpx2.TransportError: the lane does not answer, or went away.
        """
        query = urlencode({"tail": tail, "follow": 1, "since": since})
        transport = httpx2.AsyncHTTPTransport(uds=str(lane.sockets[0]), verify=False)
        async with httpx2.AsyncClient(transport=transport, timeout=None) as client:
            request = client.build_request("GET", f"http://lane{lane.base}/logs/{function}?{query}")
            try:
                async with asyncio.timeout(ASK_TIMEOUT):
                    answer = await client.send(request, stream=True)
            except TimeoutError:
                raise httpx2.TransportError(f"{lane.name} of {lane.machine} does not answer") from None
            try:
                if answer.status_code != 200:
                    raise httpx2.TransportError(f"{lane.name} of {lane.machine} answers {answer.status_code}")
                yield (LogLine.read(line) async for line in answer.aiter_lines())
            finally:
                await answer.aclose()

    def _named(self, lane: Lane, node: str) -> str:
        """Returns what a lane is called among those of all machines."""
        return f"{lane.machine}/{node}" if self._clustered else node

    def _named_scaling(self, lane: Lane, scaling: NodeScaling) -> NodeScaling:
        node = self._named(lane, scaling.node)
        decisions = [decision.model_copy(update={"node": node}) for decision in scaling.decisions]
        return scaling.model_copy(update={"node": node, "decisions": decisions})

    async def _ask_all(
        self, target: str, machine: str | None = None
    ) -> tuple[list[tuple[Lane, bytes]], tuple[str, ...]]:
        """Returns what lanes have answered, and the machines of those that have not."""
        lanes = [lane for lane in self.lanes if machine in (None, lane.machine)]
        answers = await asyncio.gather(*(self._ask(lane, target) for lane in lanes))
        missing = {lane.machine: None for lane, answer in zip(lanes, answers, strict=True) if answer is None}
        found = [(lane, answer) for lane, answer in zip(lanes, answers, strict=True) if answer is not None]
        return found, tuple(missing)

    async def _ask(self, lane: Lane, target: str) -> bytes | None:
        answer = await self._fetch(lane, "GET", target, ASK_TIMEOUT)
        if answer is None:
            return None
        status, body = answer
        if status >= 400:
            log.error(
                "lane_refused",
                machine=lane.machine,
                lane=lane.name,
                target=target,
                status=status,
                answer=body[:500],
            )
            return None
        return body

    async def _fetch(self, lane: Lane, method: str, target: str, timeout: float) -> tuple[int, bytes] | None:
        """Returns the status and the body of an answer; None where the lane gives none."""
        failure = "timeout"
        try:
            async with asyncio.timeout(timeout):
                for socket in lane.sockets:  # any lane of this machine reaches the others
                    try:
                        status, body = await fetch(socket, method, lane.base + target, timeout=timeout)
                    except FetchError as error:
                        failure = str(error)
                    else:
                        if status == Unavailable.status:
                            failure = body[:500].decode("utf-8", "replace")
                            break
                        return status, body
        except TimeoutError:
            pass
        log.warning("lane_unreachable", machine=lane.machine, lane=lane.name, error=failure)
        return None


def _names(answers: list[tuple[Lane, bytes]]) -> set[LaneName]:
    return {(lane.machine, lane.name) for lane, _ in answers}


def _without_shelves(missing: tuple[str, ...], error: ShelfError) -> tuple[str, ...]:
    log.warning("log_store_out_of_reach", error=str(error))
    return (*missing, NAME)
