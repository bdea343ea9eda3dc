"""How an attempt at an asynchronous invocation is made, and what its answer is taken for."""

from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import cast

import pytest

from martlet.errors import FunctionTimeout, NoCapacity, Overloaded, Unavailable
from martlet.gateway.attempt import Attempts, Outcome
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.routing import Routing
from martlet.http.exchange import Exchange
from martlet.model import Function, FunctionConfig, Revision
from martlet.node.call import Call
from martlet.storage.invocations import Request
from martlet.storage.memory import MemoryStore
from martlet.storage.queue import Delivery
from martlet.storage.registry import Registry, RegistryView

pytestmark = pytest.mark.anyio

MOST = 3
REQUEST = Request("hello", "hello", "PUT", "/a?b=c", b"x-one: 1\r\n", created=1.0, accepted=2.0, body=b"body")
TIMING = b"server-timing: queue;dur=0.1, run;dur=1.0\r\n"


class Instance:
    """Stands where requests are dispatched to; answers them as a test says, and keeps the last call."""

    def __init__(self) -> None:
        self.answer: Callable[[Exchange], None] = answering(200, b"hello")
        self.call: Call | None = None

    def submit(self, call: Call) -> None:
        self.call = call
        self.answer(call.exchange)


def answering(status: int, body: bytes, headers: bytes = TIMING) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        exchange.start(b"HTTP/1.1 %d ?\r\n%b" % (status, headers), len(body), body, last=True)

    return answer


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    store = MemoryStore()
    registry = Registry(store)
    await registry.put_revision(
        Revision(function="hello", number=1, config=FunctionConfig(), code="a" * 64, created=1.0)
    )
    await registry.put_function(Function(name="hello", latest=1, counter=1, created=1.0, updated=1.0))
    yield registry
    await store.close()


@pytest.fixture
def instance() -> Instance:
    return Instance()


@pytest.fixture
async def attempts(registry: Registry, instance: Instance) -> AsyncIterator[Attempts]:
    view = RegistryView(registry._store)
    await view.start()
    routing, dispatch = Routing(view, "localhost"), cast(Dispatch, instance)
    yield Attempts(view, routing, dispatch, most=MOST, first_retry=2.0, max_body=16)
    await view.close()


def delivery(attempt: int = 1, request: Request = REQUEST) -> Delivery:
    return Delivery("i1", request.encode(), attempt, "handle")


async def test_a_request_is_made_as_it_came(attempts: Attempts, instance: Instance) -> None:
    attempt = await attempts.make(delivery(2))
    assert instance.call is not None
    assert instance.call.target.id == "hello@1"
    head = instance.call.passage.head
    assert head.startswith(b"PUT /a?b=c HTTP/1.1\r\n")
    assert b"x-one: 1\r\nx-faas-attempt: 2\r\n" in head
    assert instance.call.last == b"x-request-id: i1\r\n"
    invocation = attempt.invocation
    assert (attempt.outcome, invocation.state, invocation.attempts) == (Outcome.SUCCEEDED, "succeeded", 2)
    assert invocation.answer is not None
    assert (invocation.answer.status, invocation.answer.body, invocation.error) == (200, "hello", None)


@pytest.mark.parametrize(
    ("attempt", "outcome", "state"), [(1, "failed", "waiting"), (MOST, "dead", "failed")]
)
@pytest.mark.parametrize("how", ["status", "problem"])
async def test_a_failure_is_tried_again_up_to_the_last(
    attempts: Attempts, instance: Instance, attempt: int, outcome: str, state: str, how: str
) -> None:
    if how == "status":
        instance.answer = answering(500, b"no")
    else:
        instance.answer = lambda exchange: exchange.problem(FunctionTimeout())
    made = await attempts.make(delivery(attempt))
    assert (made.outcome, made.invocation.state) == (outcome, state)
    assert (made.invocation.answer is None) == (how == "problem")
    assert made.invocation.error is None or made.invocation.error["code"] == "function_timeout"
    assert made.retry_in == 2.0 * 4 ** (attempt - 1)


@pytest.mark.parametrize("status", [200, 302, 404, 429])
async def test_what_the_function_answers_is_an_answer(
    attempts: Attempts, instance: Instance, status: int
) -> None:
    instance.answer = answering(status, b'{"code": "no_capacity"}')
    assert (await attempts.make(delivery(MOST))).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("error", [Overloaded, NoCapacity, Unavailable])
@pytest.mark.parametrize("raised", [False, True])
async def test_where_there_is_no_room_it_waits(
    attempts: Attempts, instance: Instance, error: type[Unavailable], raised: bool
) -> None:
    def refuse(exchange: Exchange) -> None:
        if raised:
            raise error
        exchange.problem(error())

    instance.answer = refuse
    assert (await attempts.make(delivery(MOST))).outcome is Outcome.POSTPONED


async def test_an_answer_that_breaks_off_has_failed(attempts: Attempts, instance: Instance) -> None:
    def break_off(exchange: Exchange) -> None:
        exchange.start(b"HTTP/1.1 200 OK\r\n" + TIMING, None, b"beginning")
        exchange.abort()

    instance.answer = break_off
    attempt = await attempts.make(delivery())
    assert attempt.outcome is Outcome.FAILED
    assert attempt.invocation.error is not None
    assert attempt.invocation.error["code"] == "function_crashed"


@pytest.mark.parametrize(
    ("body", "kept", "base64"),
    [
        ("é".encode(), "é", False),
        (b"\xff\x00", b64encode(b"\xff\x00").decode(), True),
        (b"x" * 17, None, False),
    ],
)
async def test_the_body_is_kept_as_text_if_it_is_not_too_large(
    attempts: Attempts, instance: Instance, body: bytes, kept: str | None, base64: bool
) -> None:
    instance.answer = answering(200, body)
    answer = (await attempts.make(delivery())).invocation.answer
    assert answer is not None
    assert (answer.body, answer.base64) == (kept, base64)


@pytest.mark.parametrize(
    "request_", [replace(REQUEST, function="gone", target="gone"), replace(REQUEST, created=0.5)]
)
async def test_a_function_that_was_deleted_is_not_run_even_if_there_is_another(
    attempts: Attempts, instance: Instance, request_: Request
) -> None:
    attempt = await attempts.make(delivery(request=request_))
    assert (attempt.outcome, attempt.invocation.state) == (Outcome.GONE, "failed")
    assert attempt.invocation.error is not None
    assert attempt.invocation.error["code"] == "function_not_found"
    assert instance.call is None


async def test_an_alias_that_is_not_there_may_come_back(attempts: Attempts, instance: Instance) -> None:
    attempt = await attempts.make(delivery(request=replace(REQUEST, target="hello@live")))
    assert (attempt.outcome, attempt.invocation.state) == (Outcome.FAILED, "waiting")
    assert instance.call is None
