"""The server side of HTTP/1.1, over real sockets."""

import asyncio

import pytest

from martlet.http.body import read_body

pytestmark = pytest.mark.anyio


def hello(exchange):
    exchange.request_id = "r1"
    exchange.answer(200, b"hello " + exchange.method + b" " + exchange.target)


def echo(exchange):
    async def answer():
        exchange.answer(200, await read_body(exchange))

    tasks.add(asyncio.get_running_loop().create_task(answer()))


tasks = set()


async def test_a_request_is_answered_and_the_connection_kept(serving):
    async with serving(hello) as connect:
        client = await connect()
        for path in ("/a", "/b?x=1"):
            client.send(f"GET {path} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
            status, headers, body = await client.response()
            assert (status, body) == (200, f"hello GET {path}".encode())
            assert headers["x-request-id"] == "r1"
            assert "connection" not in headers


async def test_pipelined_requests_are_answered_in_order(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nhost: h\r\n\r\n" % n for n in range(100)))
        assert [(await client.response())[2] for _ in range(100)] == [
            b"hello GET /%d" % n for n in range(100)
        ]


async def test_a_client_that_repeats_itself_without_waiting_is_not_read_for_ever(serving):
    request = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 20000\r\n\r\n" + bytes(20_000)
    answered = []

    def only_the_first(exchange):
        if not answered:
            answered.append(exchange)
            hello(exchange)

    async with serving(only_the_first) as connect:
        client = await connect()
        client.send(request)
        await client.response()
        unread = client.writer.transport.get_write_buffer_size
        for _ in range(3000):
            client.send(request)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if unread():
                break
        assert unread()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n"


class Upstream:
    """A sink for bodies; ``reads`` is whether the response behind it may go on."""

    reads = True

    def pause_response(self):
        self.reads = False

    def resume_response(self):
        self.reads = True

    def client_gone(self):
        """Nobody has to be told."""


async def test_an_upstream_is_free_again_however_slow_the_client_reads_its_last_piece(serving):
    upstream, large = Upstream(), bytes(16 << 20)
    written = asyncio.Event()

    def answer_at_once(exchange):
        exchange.take_body(upstream)
        exchange.start(OK % (len(large) + 1), len(large) + 1, b"x")
        exchange.write(large, last=True)
        written.set()

    async with serving(answer_at_once) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await written.wait()
        assert upstream.reads
        assert len((await client.response())[2]) == len(large) + 1


async def test_a_response_behind_one_that_the_client_has_not_read_is_held_back(serving):
    upstream, large = Upstream(), bytes(16 << 20)
    begun, behind = asyncio.Event(), []

    def answer(exchange):
        if exchange.target == b"/large":
            exchange.start(OK % len(large), len(large), large, last=True)
            return
        exchange.take_body(upstream)
        exchange.start(OK % 2, 2, b"a")
        behind.append(exchange)
        begun.set()

    async with serving(answer) as connect:
        client = await connect()
        client.send(b"GET /large HTTP/1.1\r\nhost: h\r\n\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n")
        await begun.wait()
        assert not upstream.reads
        assert len((await client.response())[2]) == len(large)
        await client.reader.readuntil(b"\r\n\r\na")
        assert upstream.reads
        behind[0].write(b"b", last=True)
        assert await client.reader.readexactly(1) == b"b"


async def test_a_request_may_come_byte_by_byte(serving):
    async with serving(echo) as connect:
        client = await connect()
        for byte in b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc":
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.response())[2] == b"abc"


async def test_bodies_come_whole_by_length_and_by_chunks(serving):
    large = bytes(range(256)) * 3000
    async with serving(echo) as connect:
        client = await connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(large) + large)
        assert (await client.response())[2] == large
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(large), 100_000):
            piece = large[start : start + 100_000]
            client.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
        client.send(b"0\r\n\r\n")
        assert (await client.response())[2] == large


async def test_a_client_that_repeats_its_head_is_answered_by_each_body(serving):
    head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"
    async with serving(echo) as connect:
        client = await connect()
        for body in (b"abc", b"def", b"ghi"):
            client.send(head + body)
            assert (await client.response())[2] == body
        client.send(head + b"jk")
        await asyncio.sleep(0.01)
        client.send(b"l" + head + b"mno" + head + b"pqr")
        assert [(await client.response())[2] for _ in range(3)] == [b"jkl", b"mno", b"pqr"]
        client.send(head.replace(b"3", b"4") + b"four")
        assert (await client.response())[2] == b"four"
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        assert (await client.response())[2] == b"x"
        client.send(head + b"end")
        assert (await client.response())[2] == b"end"


async def test_a_body_that_looks_like_the_repeated_head_is_still_a_body(serving):
    head = b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"
    async with serving(echo) as connect:
        client = await connect()
        client.send(head + b"abc")
        assert (await client.response())[2] == b"abc"
        inner = head + b"xyz"
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(inner))
        await asyncio.sleep(0.01)
        client.send(inner)
        assert (await client.response())[2] == inner


async def test_expect_continue_is_answered_before_the_body_is_sent(serving):
    async with serving(echo) as connect:
        client = await connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"ok")
        assert (await client.response())[2] == b"ok"


async def test_http_1_0_closes_unless_asked_to_keep(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        status, headers, _ = await client.response()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed()
        client = await connect()
        client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 2)
        assert (await client.response())[1]["connection"] == "keep-alive"
        assert (await client.response())[0] == 200


async def test_head_is_answered_without_a_body(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(b"HEAD /x HTTP/1.1\r\nhost: h\r\n\r\nGET /y HTTP/1.1\r\nhost: h\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 13\r\n" in head
        assert (await client.response())[2] == b"hello GET /y"


async def test_an_unknown_length_is_framed_as_chunks_or_by_the_end_of_the_connection(serving):
    def stream(exchange):
        exchange.start(b"HTTP/1.1 200 OK\r\n", None, b"a")
        exchange.write(b"b")
        exchange.write(b"", last=True)

    async with serving(stream) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        _, headers, body = await client.response()
        assert (headers["transfer-encoding"], body) == ("chunked", b"ab")
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        _, headers, body = await client.response()
        assert ("transfer-encoding" not in headers, body) == (True, b"ab")


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nauthorization: a\r\nAuthorization: b\r\n\r\n", 400, "bad_request"),
        (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/2.0\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/0.9\r\n\r\n", 400, "bad_request"),
        (
            b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 1\r\n\r\nx",
            400,
            "bad_request",
        ),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 9000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET /" + b"a" * 9000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "head_too_large"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", 413, "body_too_large"),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n200000\r\n"
            + b"a" * 0x200000
            + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
    ],
)
async def test_what_is_not_allowed_is_answered_and_closed(serving, request_bytes, status, code):
    async with serving(echo) as connect:
        client = await connect()
        client.send(request_bytes)
        got, headers, body = await client.response()
        assert (got, headers["content-type"], headers["connection"]) == (
            status,
            "application/problem+json",
            "close",
        )
        assert f'"code":"{code}"'.encode() in body
        assert await client.closed()


async def test_a_bad_request_behind_a_good_one_leaves_the_good_one_answered(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(b"GET /good HTTP/1.1\r\nhost: h\r\n\r\nBAD\r\n\r\n")
        assert (await client.response())[2] == b"hello GET /good"
        assert (await client.response())[0] == 400
        assert await client.closed()


@pytest.mark.parametrize("cut", [10, 40, 60, None])
async def test_a_head_behind_another_request_has_the_same_limit(serving, cut):
    data = b"GET /good HTTP/1.1\r\nhost: h\r\n\r\nGET /bad HTTP/1.1\r\nx: " + b"a" * 9000 + b"\r\n\r\n"
    async with serving(hello) as connect:
        client = await connect()
        for piece in (data[:cut], data[cut:]) if cut else (data,):
            client.send(piece)
            await asyncio.sleep(0.01)
        assert (await client.response())[2] == b"hello GET /good"
        assert (await client.response())[0] == 431


async def test_a_slow_head_and_a_stalled_body_are_answered_408(serving):
    async with serving(echo, header_timeout=0.2, body_timeout=0.2) as connect:
        for start in (b"GET / HTTP/1.1\r\nx:", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nabc"):
            client = await connect()
            client.send(start)
            if b"POST" in start:
                assert await client.closed()
            else:
                assert (await client.response())[0] == 408


async def test_an_idle_connection_is_closed(serving):
    async with serving(hello, keep_alive_timeout=0.1) as connect:
        client = await connect()
        assert await client.closed()


async def test_connections_beyond_the_limit_are_closed(serving):
    async with serving(hello, max_connections=2) as connect:
        kept = [await connect() for _ in range(2)]
        for client in kept:
            client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await client.response())[0] == 200
        assert await (await connect()).closed()


async def test_a_client_that_half_closes_still_gets_its_answer(serving):
    async with serving(echo) as connect:
        client = await connect()
        client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
        client.writer.write_eof()
        assert (await client.response())[2] == b"hi"
        assert await client.closed()


H2C = b"POST / HTTP/1.1\r\nhost: h\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize(
    "framed",
    [
        b"content-length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
        b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_the_body_of_a_request_for_an_upgrade_is_no_request(serving, framed, whole):
    async with serving(echo) as connect:
        client = await connect()
        client.send(H2C + framed[:70])
        if not whole:
            await asyncio.sleep(0.01)
        client.send(framed[70:] + b"GET /next HTTP/1.1\r\n\r\n")
        status, headers, body = await client.response()
        assert (status, headers["connection"], body) == (200, "close", HIDDEN)
        assert await client.closed()


async def test_an_upgrade_that_is_not_known_is_ignored(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(H2C.replace(b"POST", b"GET") + b"\r\n" + HIDDEN)
        assert [(await client.response())[2] for _ in range(2)] == [b"hello GET /", b"hello GET /hidden"]


async def test_a_refused_upgrade_ends_the_connection(serving):
    async with serving(hello) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert (await client.response())[1]["connection"] == "close"
        assert await client.closed()


async def test_a_client_that_does_not_wait_for_its_upgrade_is_not_read(serving):
    async with serving(lambda exchange: None) as connect:
        client = await connect()
        client.send(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        client.send(bytes(64 * 1024 * 1024))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.5)
        client.writer.transport.abort()


@pytest.mark.parametrize("whole", [True, False])
async def test_what_trails_a_body_is_no_header(serving, whole):
    def headers_of(exchange):
        async def answer():
            await read_body(exchange)
            exchange.answer_json(200, [name.decode() for name, _ in exchange.headers])
            seen.append(exchange.authorization)

        tasks.add(asyncio.get_running_loop().create_task(answer()))

    seen = []
    async with serving(headers_of) as connect:
        client = await connect()
        client.send(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
        if not whole:
            await asyncio.sleep(0.01)
        client.send(b"0\r\nauthorization: Bearer k\r\nupgrade: websocket\r\n\r\n")
        assert (await client.response())[2] == b'["transfer-encoding"]'
    assert seen == [None]
