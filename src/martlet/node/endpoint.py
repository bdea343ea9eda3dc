"""The node's own HTTP interface, for control and the other lanes (see docs/design.md)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

import orjson
import structlog
from pydantic import ValidationError

from martlet.errors import Invalid, MartletError, NoCapacity, NotFound, Unavailable
from martlet.http.body import client_left, read_body
from martlet.http.exchange import Exchange
from martlet.http.fetch import FetchError, fetch
from martlet.model import LogLine, Revision
from martlet.node.arrivals import INVOKE, Arrivals
from martlet.node.call import Call
from martlet.node.node import Node
from martlet.node.summary import summary
from martlet.scheduling.placement import Placement
from martlet.storage.registry import RegistryView
from martlet.storage.store import StoreError

log = structlog.get_logger()

AT = b"/_node/at/"
"""Begins what is asked of another machine: ``/_node/at/<id of the node>/<what it is asked>``."""
LOAD_TIMEOUT = 600.0
NDJSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n"

Answer = Callable[[Exchange, str, dict[str, str], Any], Awaitable[None]]


class Endpoint:
    """`Application` of the lane's private socket.

    Args:
        node: of this lane.
        view: what the store holds.
        lane_socket: the private socket of a lane.
        relay: passes on what is asked of another machine (`AT`).
    """

    def __init__(
        self,
        node: Node,
        view: RegistryView,
        lane_socket: Callable[[int], Any],
        relay: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._node = node
        self._view = view
        self._lane_socket = lane_socket
        self._relay = relay or _alone
        self._arrivals = Arrivals(node, view, self._submit)
        self._answers: dict[tuple[bytes, str], Answer] = {
            (b"GET", "health"): self._health,
            (b"GET", "instances"): self._instances,
            (b"DELETE", "instances"): self._stop,
            (b"GET", "stats"): self._stats,
            (b"GET", "scaling"): self._scaling,
            (b"GET", "logs"): self._logs,
            (b"GET", "invocations"): self._invocations,
            (b"DELETE", "functions"): self._forget,
            (b"POST", "sync"): self._sync,
            (b"POST", "load"): self._load,
            (b"POST", "place"): self._place,
            (b"POST", "release"): self._release,
            (b"POST", "leave"): self._leave,
        }

    def handle(self, exchange: Exchange) -> None:
        """Answers a request."""
        exchange.request_id = (exchange.header(b"x-request-id") or b"").decode("ascii", "replace")
        if exchange.target.startswith(INVOKE):
            self._arrivals.take(exchange)
        elif exchange.target.startswith(AT):
            self._relay(exchange)
        else:
            self.answer(exchange, exchange.target)

    def answer(self, exchange: Exchange, target: bytes) -> None:
        """Answers what ``target`` asks, which a request of another machine says in other words."""
        self._node.spawn(self._answer(exchange, target))

    def max_body(self, exchange: Exchange) -> int:
        """Trusts the other lanes and control; what comes from outside was bounded there."""
        return sys.maxsize

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        """Answers a request that is not HTTP as it should be."""
        exchange.problem(error)

    def _submit(self, call: Call) -> None:
        """Runs what another lane forwards. Raises `Overloaded`."""
        lane = call.exchange.header(b"x-martlet-lane") or b"0"
        self._node.allowance.forwarded(call.target.id, int(lane))
        self._node.pool(call.target.revision).submit(call)

    # -- everything else

    async def _answer(self, exchange: Exchange, target: bytes) -> None:
        path, _, query = target.decode("ascii", "replace").partition("?")
        _, _, noun, *rest = [*path.split("/", 3), "", ""]
        arguments = {name: values[-1] for name, values in parse_qs(query).items()}
        try:
            answer = self._answers.get((exchange.method, noun))
            if answer is None or not path.startswith("/_node/"):
                raise NotFound(f"there is no {path}")
            body = await read_body(exchange)
            await answer(exchange, rest[0], arguments, orjson.loads(body) if body else None)
        except MartletError as error:
            if not exchange.gone:
                exchange.problem(error)
        except StoreError as error:
            exchange.problem(Unavailable(f"the store is out of reach: {error}"))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            exchange.problem(Invalid(f"the request is not what {path} takes: {error}"))

    async def _health(self, exchange: Exchange, *_: Any) -> None:
        exchange.answer_json(200, summary(self._node, self._view))

    async def _instances(self, exchange: Exchange, *_: Any) -> None:
        exchange.answer_json(200, [view.model_dump(mode="json") for view in await self._node.views()])

    async def _stop(self, exchange: Exchange, instance: str, *_: Any) -> None:
        await self._node.stop(instance)
        exchange.answer(204)

    async def _stats(self, exchange: Exchange, *_: Any) -> None:
        exchange.answer_json(200, self._node.stats())

    async def _invocations(
        self, exchange: Exchange, function: str, arguments: dict[str, str], _: Any
    ) -> None:
        views = await self._node.recorder.history.list(function, int(arguments.get("limit", 100)))
        exchange.answer_json(200, [view.model_dump(mode="json") for view in views])

    async def _scaling(self, exchange: Exchange, function: str, *_: Any) -> None:
        exchange.answer_json(200, self._node.scaling(function).model_dump(mode="json"))

    async def _logs(self, exchange: Exchange, function: str, arguments: dict[str, str], _: Any) -> None:
        tail = int(arguments.get("tail", 100))
        since = float(arguments["since"]) if "since" in arguments else None
        if arguments.get("follow") != "1":
            lines = await self._node.logs.read(function, tail, since)
            exchange.start(NDJSON_HEAD, None, b"".join(map(_document, lines)), last=True)
            return
        exchange.start(NDJSON_HEAD, None)
        following = asyncio.ensure_future(self._follow(exchange, function, tail, since))
        leaving = asyncio.ensure_future(client_left(exchange))
        stopping = asyncio.ensure_future(self._node.withdrawal.stopped())
        await asyncio.wait([following, leaving, stopping], return_when=asyncio.FIRST_COMPLETED)
        for task in (following, leaving, stopping):
            task.cancel()
        await asyncio.gather(following, leaving, stopping, return_exceptions=True)
        if not exchange.gone:
            exchange.write(b"", last=True)

    async def _follow(self, exchange: Exchange, function: str, tail: int, since: float | None) -> None:
        async with aclosing(self._node.logs.follow(function, tail, since)) as lines:
            async for line in lines:
                exchange.write(_document(line))

    async def _forget(self, exchange: Exchange, function: str, *_: Any) -> None:
        await self._node.forget(function)
        exchange.answer(204)

    async def _sync(self, exchange: Exchange, _rest: str, _arguments: dict[str, str], document: Any) -> None:
        await self._view.catch_up(int(document["revision"]))
        exchange.answer(204)

    async def _load(self, exchange: Exchange, _rest: str, _arguments: dict[str, str], document: Any) -> None:
        try:
            revision = Revision.model_validate(document, extra="ignore")
        except ValidationError as error:
            raise Invalid(f"not a revision: {error}") from None
        home = self._node.allowance.host(revision.id)
        if home != self._node.lane:
            try:
                status, body = await fetch(
                    self._lane_socket(home), "POST", "/_node/load", document, timeout=LOAD_TIMEOUT
                )
                exchange.answer(status, body, ((b"content-type", b"application/json"),))
                return
            except FetchError:
                self._node.allowance.lost(home)
        try:
            exchange.answer_json(200, await self._node.load(revision))
        except NoCapacity as error:  # whoever deploys may know why
            raise error if error.__cause__ is None else NoCapacity(str(error.__cause__)) from error

    async def _place(self, exchange: Exchange, _rest: str, _arguments: dict[str, str], question: Any) -> None:
        answer: Placement = self._node.allowance.asked(
            question["revision"],
            int(question["lane"]),
            int(question["at"]),
            int(question["held"]),
            int(question["max"]),
        )
        exchange.answer_json(200, {"answer": answer})

    async def _release(self, exchange: Exchange, _rest: str, _arguments: dict[str, str], report: Any) -> None:
        held = {str(revision): int(count) for revision, count in report["held"].items()}
        behind = self._node.allowance.reported(int(report["lane"]), int(report["at"]), held)
        exchange.answer_json(200, {"behind": behind})

    async def _leave(self, exchange: Exchange, *_: Any) -> None:
        self._node.withdrawal.stop()
        exchange.answer(204)


def _alone(exchange: Exchange) -> None:
    exchange.problem(Unavailable("this machine is in no cluster"))


def _document(line: LogLine) -> bytes:
    return line.model_dump_json().encode() + b"\n"
