"""One attempt at an asynchronous invocation: made as a request of a client is, and judged by what is answered."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum
from time import time
from typing import Any

import orjson

from martlet.errors import (
    FunctionCrashed,
    FunctionNotFound,
    MartletError,
    NoCapacity,
    Overloaded,
    Unavailable,
)
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.routing import Routing
from martlet.http.inward import Inward, Response
from martlet.model import Invocation, InvocationAnswer, InvocationState
from martlet.node.call import Call
from martlet.node.passage import ATTEMPT, Passage
from martlet.node.target import Target
from martlet.storage.invocations import Request
from martlet.storage.queue import Delivery
from martlet.storage.registry import RegistryView

MAX_PROBLEM = 64 * 1024
"""Bytes of a problem document that are read, however little of an answer is kept."""
LAST_RETRY = 3600.0
RETRY_FACTOR = 4
NO_ROOM = frozenset({Overloaded.code, NoCapacity.code, Unavailable.code})
"""Codes of problems that say nothing of the function: the request has not reached it, and is not an attempt."""


class Outcome(StrEnum):
    """How an attempt went; ``gone`` is a function that was deleted, ``dead`` the last attempt, which failed."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEAD = "dead"
    POSTPONED = "postponed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt: the invocation as it is now, and in how many seconds it is tried again if it failed."""

    outcome: Outcome
    invocation: Invocation
    retry_in: float


class Attempts:
    """Makes attempts.

    Args:
        view: where functions are looked up.
        routing: what their names lead to.
        dispatch: where requests are run.
        most: how often an invocation is tried.
        first_retry: seconds between the first attempt and the second.
        max_body: bytes of an answer's body that are kept.
    """

    def __init__(
        self,
        view: RegistryView,
        routing: Routing,
        dispatch: Dispatch,
        most: int,
        first_retry: float,
        max_body: int,
    ) -> None:
        self._view = view
        self._routing = routing
        self._dispatch = dispatch
        self._most = most
        self._first_retry = first_retry
        self._max_body = max_body

    async def make(self, delivery: Delivery) -> Attempt:
        """Runs what was asked for, and returns what came of it. Cancelled, it runs no more."""
        request = Request.decode(delivery.message)
        answer, problem, outcome = None, None, Outcome.FAILED
        try:
            if not await self._exists(request):
                outcome = Outcome.GONE
                raise FunctionNotFound(f"the function {request.function!r} was deleted")
            response = await self._response(request, delivery, await self._target(request))
            problem = _problem(response)
            if problem is None:
                answer = _answer(response, self._max_body)
                outcome = Outcome.FAILED if response.status >= 500 else Outcome.SUCCEEDED
        except MartletError as error:
            problem = error.problem(delivery.id)
        if problem is not None and problem.get("code") in NO_ROOM:
            outcome = Outcome.POSTPONED
        elif outcome is Outcome.FAILED and delivery.attempt >= self._most:
            outcome = Outcome.DEAD
        return Attempt(
            outcome, self._invocation(request, delivery, outcome, answer, problem), self._delay(delivery)
        )

    def _invocation(
        self,
        request: Request,
        delivery: Delivery,
        outcome: Outcome,
        answer: InvocationAnswer | None,
        problem: dict[str, Any] | None,
    ) -> Invocation:
        states = {
            Outcome.SUCCEEDED: InvocationState.SUCCEEDED,
            Outcome.DEAD: InvocationState.FAILED,
            Outcome.GONE: InvocationState.FAILED,
        }
        state = states.get(outcome, InvocationState.WAITING)
        return Invocation(
            id=delivery.id,
            function=request.function,
            target=request.target,
            state=state,
            accepted=request.accepted,
            attempts=delivery.attempt,
            ended=None if state is InvocationState.WAITING else time(),
            answer=answer,
            error=problem,
        )

    def _delay(self, delivery: Delivery) -> float:
        factor: float = RETRY_FACTOR ** (delivery.attempt - 1)
        return min(self._first_retry * factor, LAST_RETRY)

    async def _exists(self, request: Request) -> bool:
        """Whether the function is still the one that was asked. Raises `Unavailable`."""
        function = self._view.functions.get(request.function)
        if function is None or function.created != request.created:
            function = await self._view.lookup_function(request.function)
        return function is not None and function.created == request.created

    async def _target(self, request: Request) -> Target:
        name = request.target.encode()
        target = self._routing.resolve(name)
        if target is None:
            await self._view.lookup_function(request.function)
            target = self._routing.resolve(name)
        if target is None:
            raise FunctionNotFound(f"there is no revision or alias {request.target!r}")
        return target

    async def _response(self, request: Request, delivery: Delivery, target: Target) -> Response:
        method, path = request.method.encode(), request.path.encode("latin-1")
        headers = request.headers + b"%b: %d\r\n" % (ATTEMPT, delivery.attempt)
        inward = Inward(method, request.body, delivery.id, max(self._max_body, MAX_PROBLEM))
        call = inward.exchange.context = Call(inward.exchange, Passage(target, method, path, headers))
        self._dispatch.submit(call)
        response = await inward.response()
        if not response.status:
            raise FunctionCrashed("the answer broke off before its end")
        return response


def _problem(response: Response) -> dict[str, Any] | None:
    """Returns the problem that the platform has answered; None where it is the function's own answer.

    What comes from an instance always has a timing, whatever the function says.
    """
    if response.header(b"server-timing") is not None:
        return None
    try:
        problem = orjson.loads(response.body or b"")
    except orjson.JSONDecodeError:
        return None
    return problem if isinstance(problem, dict) else None


def _answer(response: Response, max_body: int) -> InvocationAnswer:
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.headers
        if name != b"content-length"
    )
    if response.body is None or len(response.body) > max_body:
        return InvocationAnswer(status=response.status, headers=headers, body=None)
    try:
        return InvocationAnswer(status=response.status, headers=headers, body=response.body.decode())
    except UnicodeDecodeError:
        return InvocationAnswer(
            status=response.status, headers=headers, body=b64encode(response.body).decode(), base64=True
        )
