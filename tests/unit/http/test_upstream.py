"""What comes back from behind: passed on when it is right, stopped when it is not.

All of it holds on one machine, and where there is another machine in between, over mutual TLS.
"""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest

from martlet.cluster.identity import Identity
from martlet.cluster.joining import begin
from martlet.http.hop import Hop, over_tls, over_unix
from martlet.http.server import Server
from tests.unit.http.conftest import LIMITS, Application, connections_closed

pytestmark = pytest.mark.anyio

NODE = "0123456789ab"


@pytest.fixture(scope="module")
def identity(tmp_path_factory):
    identity = Identity(tmp_path_factory.mktemp("node"))
    begin(identity, NODE)
    return identity


@pytest.fixture(params=[False, True], ids=["on-one-machine", "across-machines"])
def serving(serving, identity, request):
    serving.identity = identity if request.param else None
    return serving


@asynccontextmanager
async def way_to(path, identity):
    """How a hop reaches a unix socket: at once, or over another machine."""
    if identity is None:
        yield over_unix(path)
        return
    hop = Hop(over_unix(path), "the upstream")
    server = Server(Application(lambda exchange: pass_on(hop, exchange)), LIMITS)
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.get_running_loop()
    tcp = await loop.create_server(server, sock=listener, ssl=identity.for_others())
    try:
        yield over_tls(*listener.getsockname(), NODE, identity.towards_others())
    finally:
        tcp.close()
        hop.close()
        await server.drain(0)
        await asyncio.sleep(0)


def pass_on(hop, exchange):
    exchange.request_id = "r1"
    hop.send(exchange, b"%b %b HTTP/1.1\r\nhost: h\r\n" % (exchange.method, exchange.target))


@asynccontextmanager
async def forwarding(serving, tmp_path, upstream):
    """A server that forwards to a unix socket where ``upstream(reader, writer)`` answers."""

    async def answer(reader, writer):
        try:
            await upstream(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    behind = await asyncio.start_unix_server(answer, tmp_path / "s")
    async with way_to(tmp_path / "s", serving.identity) as way:
        hop = Hop(way, "the upstream")
        async with serving(lambda exchange: pass_on(hop, exchange)) as connect:
            connect.hop = hop
            yield connect
        hop.cut()
    behind.close()
    await connections_closed()


def canned(*pieces, close=False):
    """Answers each request with these bytes, piece by piece."""

    async def upstream(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            if close:
                return

    return upstream


async def get(connect, method=b"GET"):
    client = await connect()
    client.send(method + b" / HTTP/1.1\r\nhost: h\r\n\r\n")
    return client


async def test_a_hop_that_is_closed_ends_what_it_carries_and_keeps_nothing_open(serving, tmp_path):
    begun, going_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def upstream(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await going_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        assert await reader.read() == b""
        ended.set()

    async with forwarding(serving, tmp_path, upstream) as connect:
        client = await get(connect)
        await begun.wait()
        connect.hop.close()
        going_on.set()
        assert (await client.response())[::2] == (200, b"hello")
        if serving.identity is None:  # else the machine in between keeps its own
            async with asyncio.timeout(60):
                await ended.wait()
        assert not connect.hop._connections


async def test_a_connection_that_is_idle_for_long_is_closed_by_who_sends_over_it(
    serving, tmp_path, monkeypatch
):
    monkeypatch.setattr("martlet.http.hop.IDLE_SECONDS", 0.2)
    closed = asyncio.Event()

    async def upstream(reader, writer):
        while not reader.at_eof():
            with suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        closed.set()

    async with forwarding(serving, tmp_path, upstream) as connect:
        assert (await (await get(connect)).response())[0] == 200
        async with asyncio.timeout(60):
            while connect.hop._connections:
                await asyncio.sleep(0.01)
            if serving.identity is None:  # else the machine in between keeps its own
                await closed.wait()
        assert (await (await get(connect)).response())[0] == 200


async def test_where_one_connection_is_lost_the_idle_ones_are_not_trusted(serving, tmp_path):
    connections, dying = [], asyncio.Event()

    async def upstream(reader, writer):
        connections.append(writer)
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"DELETE"):
                await dying.wait()
                return
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    async with forwarding(serving, tmp_path, upstream) as connect:
        dies = await get(connect, b"DELETE")
        while not connections:
            await asyncio.sleep(0.001)
        assert (await (await get(connect)).response())[0] == 200
        assert len(connections) == 2
        dying.set()
        assert (await dies.response())[0] == 503
        assert (await (await get(connect)).response())[0] == 200
        assert len(connections) == 3


@pytest.mark.parametrize(
    ("pieces", "close", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"], False, b"hello"),
        ([b"HTTP/1.1 200 OK\r\ncont", b"ent-length: 5\r\n\r\nhe", b"llo"], False, b"hello"),
        (
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n"],
            False,
            b"hello",
        ),
        ([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"], True, b"hello"),
        (
            [
                b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            ],
            False,
            b"hello",
        ),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], False, b""),
    ],
)
async def test_every_framing_arrives_whole_and_the_client_connection_lives_on(
    serving, tmp_path, pieces, close, body
):
    async with forwarding(serving, tmp_path, canned(*pieces, close=close)) as connect:
        client = await connect()
        for _ in range(3):
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            if body:
                assert (await client.response())[2] == body
            else:
                assert (
                    await client.reader.readuntil(b"\r\n\r\n")
                    == b"HTTP/1.1 204 No Content\r\nx-request-id: r1\r\n\r\n"
                )


async def test_an_upstream_that_repeats_its_head_passes_on_each_body(serving, tmp_path):
    bodies = [b"one", b"two", b"three", b"six", b"ten"]

    async def upstream(reader, writer):
        for body in bodies:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nx-kept: 1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async with forwarding(serving, tmp_path, upstream) as connect:
        client = await connect()
        for body in bodies:
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            _, headers, got = await client.response()
            assert (got, headers["x-kept"]) == (body, "1")


async def test_a_repeated_head_is_no_excuse_for_a_body_in_pieces_or_a_second_response(serving, tmp_path):
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
    answers = [[head + b"good"], [head + b"go", b"od"], [head + b"good" + head + b"evil"]]

    async def upstream(reader, writer):
        for pieces in answers:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)

    async with forwarding(serving, tmp_path, upstream) as connect:
        client = await connect()
        seen = []
        for _ in answers:
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            status, _, body = await client.response()
            seen.append((status, body if status == 200 else b""))
            assert b"evil" not in body
    assert seen == [(200, b"good"), (200, b"good"), (503, b"")]


async def test_head_takes_no_body_even_where_a_length_is_named(serving, tmp_path):
    async with forwarding(
        serving, tmp_path, canned(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    ) as connect:
        client = await connect()
        for _ in range(2):
            client.send(b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert b"content-length: 5\r\n" in await client.reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 999 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 020 No\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
    ],
)
async def test_what_is_not_a_response_is_not_passed_on(serving, tmp_path, answer):
    async with forwarding(serving, tmp_path, canned(answer)) as connect:
        client = await get(connect)
        status, headers, body = await client.response()
        assert status == 503
        assert headers["content-type"] == "application/problem+json"
        assert b"secret" not in body


async def test_a_response_that_breaks_off_cuts_the_client_rather_than_look_complete(serving, tmp_path):
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhel"]
    async with forwarding(serving, tmp_path, canned(*pieces, close=True)) as connect:
        client = await get(connect)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await client.response()


async def test_headers_of_one_connection_are_not_passed_on(serving, tmp_path):
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: 1\r\nx-martlet-secret: 1\r\nx-kept: 1\r\n\r\n"
    )
    async with forwarding(serving, tmp_path, canned(answer)) as connect:
        _, headers, _ = await (await get(connect)).response()
        assert headers == {"x-kept": "1", "x-request-id": "r1", "content-length": "0"}


async def test_a_large_body_streams_through_with_bounded_memory(serving, tmp_path):
    size = 64 * 1024 * 1024
    pending = 0
    highest = 0

    async def produce(reader, writer):
        nonlocal pending, highest
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(bytes(65536))
            pending += 65536
            highest = max(highest, pending)
            await writer.drain()

    async with forwarding(serving, tmp_path, produce) as connect:
        client = await get(connect)
        await client.reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < size:
            data = await client.reader.read(1 << 20)
            got += len(data)
            pending -= len(data)
    assert got == size
    assert highest < 16 * 1024 * 1024, "the producer was not held back"


async def test_a_request_body_is_forwarded_while_it_comes(serving, tmp_path):
    async def echo_first_piece(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(3)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n" + first)
        writer.write(await reader.readexactly(3))
        await writer.drain()

    async with forwarding(serving, tmp_path, echo_first_piece) as connect:
        client = await connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc")
        await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(3) == b"abc"
        client.send(b"def")
        assert await client.reader.readexactly(3) == b"def"


async def test_an_upgrade_becomes_a_tunnel_both_ways(serving, tmp_path):
    async def upstream(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"upgrade: websocket\r\n" in head
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nready"
        )
        while data := await reader.read(100):
            writer.write(data.upper())

    async with forwarding(serving, tmp_path, upstream) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await client.reader.readexactly(10) == b"readyEARLY"
        client.send(b"more")
        assert await client.reader.readexactly(4) == b"MORE"
        client.writer.write_eof()
        assert await client.closed()


async def test_nobody_behind_is_answered_503_with_a_hint_to_retry(serving, tmp_path):
    hop = Hop(over_unix(tmp_path / "nobody"), "the upstream")
    async with serving(lambda exchange: hop.send(exchange, [b"GET / HTTP/1.1\r\n"])) as connect:
        status, headers, _ = await (await get(connect)).response()
        assert (status, headers["retry-after"]) == (503, "1")


async def test_a_connection_that_ends_before_it_is_used_is_given_no_request(serving, tmp_path):
    async def hang_up(_reader, writer):
        writer.close()

    async def slowly(factory):
        made = await over_unix(tmp_path / "s")(factory)
        while not made[1].closed:
            await asyncio.sleep(0.001)
        return made

    behind = await asyncio.start_unix_server(hang_up, tmp_path / "s")
    hop = Hop(slowly, "the upstream")
    async with serving(lambda exchange: pass_on(hop, exchange)) as connect:
        async with asyncio.timeout(20):
            status, *_ = await (await get(connect)).response()
        assert status == 503
        assert not hop.busy
    behind.close()
