"""Requests that are to be answered later: taken into the queue of their function, and answered 202."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import time

from martlet.errors import BodyTooLarge, FunctionNotFound, Invalid, MartletError
from martlet.gateway.routing import INVOKE, Route
from martlet.http.body import read_body
from martlet.http.exchange import Exchange, Header
from martlet.node.passage import passed_on
from martlet.storage.invocations import Invocations, Request
from martlet.storage.registry import RegistryView
from martlet.telemetry.stats import LaneStats

PREFER = b"prefer"
RESPOND_ASYNC = b"respond-async"
"""RFC 7240: rather 202 now than the answer later."""
IDEMPOTENCY_KEY = b"idempotency-key"
LONGEST_KEY = 255
APPLIED: Header = (b"preference-applied", RESPOND_ASYNC)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """See the module.

    Attributes:
        invocations: the queues.
        view: where functions are looked up.
        stats: counts what is accepted.
        max_body: bytes of a request's body.
        accepted: called with the function of each request that is in its queue.
    """

    invocations: Invocations
    view: RegistryView
    stats: LaneStats
    max_body: int
    accepted: Callable[[str], None]

    async def accept(
        self, exchange: Exchange, route: Route, function: str, caller: str | None, strip_key: bool
    ) -> None:
        """Answers a request that `is_deferred`, and that may be made.

        Args:
            exchange: the request.
            route: where it is to go.
            function: the one it is for.
            caller: whose key it came with; None where the function is for everybody.
            strip_key: see `Passage.of_client`.
        """
        try:
            body = await self._body(exchange)
            if body is None:
                return
            known = self.view.functions.get(function)
            if known is None:
                raise FunctionNotFound(f"there is no function {function!r} any more")
            request = Request(
                function=function,
                target=route.name.decode("ascii"),
                method=exchange.method.decode("ascii"),
                path=route.path.decode("latin-1"),
                headers=passed_on(exchange, route.path, strip_key, (PREFER,)),
                created=known.created,
                accepted=time(),
                body=body,
            )
            invocation = await self.invocations.accept(request, _name(exchange, caller))
        except MartletError as error:
            self.stats.refuse(error.code)
            if not exchange.gone:
                exchange.problem(error)
            return
        self.stats.function(function).accepted += 1
        self.accepted(function)
        if not exchange.gone:
            exchange.request_id = invocation.id
            location = f"/invocations/{invocation.id}".encode()
            headers: tuple[Header, ...] = ((b"location", location), APPLIED)
            exchange.answer_json(202, invocation.model_dump(mode="json"), headers)

    async def _body(self, exchange: Exchange) -> bytes | None:
        """Returns the body; None where the client has left before its end. Raises `BodyTooLarge`."""
        if exchange.content_length is None or exchange.content_length <= self.max_body:
            body = await read_body(exchange)
            if exchange.gone or len(body) <= self.max_body:
                return None if exchange.gone else body
        raise BodyTooLarge(
            f"the body of an asynchronous invocation may have {self.max_body} bytes (system.async_max_body)"
        )


def is_deferred(exchange: Exchange, route: Route) -> bool:
    """Whether a request is to be answered later: those below ``/invoke/`` whose client prefers that.

    Elsewhere the preference is the function's own business.
    """
    if exchange.upgrade or route.path == exchange.target or not exchange.target.startswith(INVOKE):
        return False
    return any(
        preference.strip().lower() == RESPOND_ASYNC
        for name, value in exchange.headers
        if name == PREFER
        for preference in value.split(b",")
    )


def _name(exchange: Exchange, caller: str | None) -> str | None:
    """Returns what the caller calls the request, so that it may send it again."""
    key = exchange.header(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 0 < len(key) <= LONGEST_KEY:
        raise Invalid(
            f"idempotency-key: send 1 to {LONGEST_KEY} characters, not {len(key)}", field="idempotency-key"
        )
    return f"{caller or ''}:{key.decode('latin-1')}"
