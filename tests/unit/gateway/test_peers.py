"""What other machines may ask of a lane, and that the lane they name says it."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from martlet.gateway.peers import Peers
from martlet.http.server import Server
from tests.unit.http.conftest import LIMITS, Application

pytestmark = pytest.mark.anyio


def said_by(name):
    def answer(exchange, target=None):
        exchange.answer(200, b"%b: %b %b" % (name, exchange.method, target or exchange.target))

    return answer


@asynccontextmanager
async def machine(folder, serving):
    """The first lane of a machine with two, as other machines see it; what lanes answer is who was asked what."""
    here = SimpleNamespace(answer=said_by(b"here"))
    node = SimpleNamespace(lane=0, lanes=2)
    dispatch = SimpleNamespace(submit_here=None)
    peers = Peers(node, None, dispatch, here, None, folder)
    server = Server(Application(said_by(b"there")), LIMITS)
    unix = await asyncio.get_running_loop().create_unix_server(server, folder / "lane-1.sock")
    async with serving(peers.handle) as connect:
        yield connect
    unix.close()
    await server.drain(0)


async def ask(connect, method, target):
    client = await connect()
    answers = set()
    for _ in range(2):  # what was asked before on a connection is remembered there
        client.send(f"{method} {target} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        status, _, body = await client.response()
        answers.add((status, body.decode()))
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("GET", "instances"),
        ("DELETE", "instances/0-1f"),
        ("GET", "stats"),
        ("GET", "scaling/hello"),
        ("GET", "logs/hello?tail=3&follow=1"),
        ("GET", "invocations/hello?limit=3"),
    ],
)
async def test_the_lane_that_is_named_says_what_it_has(tmp_path, serving, method, asked):
    async with machine(tmp_path, serving) as connect:
        here = await ask(connect, method, f"/_node/lane-0/{asked}")
        there = await ask(connect, method, f"/_node/lane-1/{asked}")
    assert here == (200, f"here: {method} /_node/{asked}")
    assert there == (200, f"there: {method} /_node/{asked}")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/_node/lane-1/functions/hello"),
        ("DELETE", "/_node/lane-1/instances"),
        ("POST", "/_node/lane-1/instances/0-1f"),
        ("GET", "/_node/lane-1/health"),
        ("GET", "/_node/lane-1/statsx"),
        ("GET", "/_node/lane-2/stats"),
        ("GET", "/_node/instances"),
        ("GET", "/_node/at/other/lane-0/instances"),
        ("POST", "/_node/sync"),
        ("POST", "/_node/place"),
    ],
)
async def test_nothing_else_is_told(tmp_path, serving, method, target):
    async with machine(tmp_path, serving) as connect:
        assert (await ask(connect, method, target))[0] == 404


async def test_a_lane_that_is_being_started_does_not_answer(tmp_path, serving):
    async with machine(tmp_path, serving) as connect:
        (tmp_path / "lane-1.sock").unlink()
        assert (await ask(connect, "GET", "/_node/lane-1/stats"))[0] == 503
