"""A request that comes from inside, and its response gathered."""

import asyncio

import pytest

from martlet.errors import NoCapacity
from martlet.http.inward import Inward

pytestmark = pytest.mark.anyio


class Sink:
    """Whoever runs a request."""

    left = False

    def client_gone(self) -> None:
        self.left = True


def inward() -> Inward:
    return Inward(b"POST", b"body", "request-1", at_most=8)


async def test_the_request_is_whole_and_the_response_is_gathered() -> None:
    request = inward()
    assert request.exchange.complete
    assert request.exchange.take_body(Sink()) == b"body"  # type: ignore[arg-type]
    request.exchange.start(b"HTTP/1.1 201 Created\r\nX-One: 1\r\nx-two: a:b\r\n", None, b"one")
    request.exchange.write(b"two")
    request.exchange.write(b"", last=True)
    response = await request.response()
    assert (response.status, response.body) == (201, b"onetwo")
    assert response.headers == ((b"x-one", b"1"), (b"x-two", b"a:b"))
    assert response.header(b"x-two") == b"a:b"


async def test_a_problem_is_a_response() -> None:
    request = Inward(b"POST", b"", "request-1", at_most=4096)
    request.exchange.problem(NoCapacity())
    response = await request.response()
    assert response.status == 503
    assert b'"no_capacity"' in (response.body or b"")


async def test_a_body_over_the_limit_is_left_out() -> None:
    request = inward()
    request.exchange.start(b"HTTP/1.1 200 OK\r\n", None, b"12345678")
    request.exchange.write(b"9")
    request.exchange.write(b"", last=True)
    assert (await request.response()).body is None


async def test_a_response_that_breaks_off_has_no_status() -> None:
    request = inward()
    request.exchange.start(b"HTTP/1.1 200 OK\r\n", None, b"1234")
    request.exchange.abort()
    assert (await request.response()).status == 0


async def test_who_runs_it_hears_that_nobody_waits_any_more() -> None:
    request, sink = inward(), Sink()
    request.exchange.take_body(sink)  # type: ignore[arg-type]
    waiting = asyncio.ensure_future(request.response())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert sink.left
    assert request.exchange.gone
