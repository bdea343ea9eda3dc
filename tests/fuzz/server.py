"""The public side of the gateway: what a client sends means the same in whatever pieces it comes; answers are HTTP."""

from martlet.errors import MartletError
from martlet.http.exchange import Exchange
from martlet.http.server import Server, ServerLimits
from tests.fuzz.oracle import Request, read_requests, read_responses
from tests.fuzz.wire import CUT, Transport, chance, cut_anywhere, every_byte, run, settle

LIMITS = ServerLimits(
    max_body=2000,
    max_header=4000,
    header_timeout=1e9,
    body_timeout=1e9,
    keep_alive_timeout=1e9,
    max_connections=10,
)
HEAD = b"POST /a?b HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"
SEEDS = [
    b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
    CUT.join([HEAD + b"abc", HEAD + b"def", HEAD + b"gh", b"i" + HEAD + b"jkl"]),
    CUT.join([HEAD + b"abc", HEAD + HEAD[:3], HEAD[3:] + b"abc"]),
    b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nt: 1\r\n\r\n"
    + HEAD
    + b"abc",
    b"POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n" + CUT + b"hi",
    b"GET http://h/p HTTP/1.0\r\nconnection: keep-alive\r\n\r\nHEAD /x HTTP/1.1\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly" + CUT + b"later",
    b"POST / HTTP/1.1\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\ncontent-length: 4\r\n\r\nbody",
    b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n" + HEAD + b"abc",
]


class Echo:
    """Answers each request with what it was, once it is complete; takes every upgrade."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.methods: list[bytes] = []
        self.misframed: list[int | None] = []
        self.tunnels = 0

    def handle(self, exchange: Exchange) -> None:
        Answer(self, exchange)

    def max_body(self, exchange: Exchange) -> int:
        return LIMITS.max_body

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        self.methods.append(exchange.method or b"GET")
        exchange.problem(error)


class Answer:
    """The body sink of one request."""

    def __init__(self, echo: Echo, exchange: Exchange) -> None:
        self.echo, self.exchange = echo, exchange
        self.tunnel = exchange.upgrade
        if self.tunnel:
            echo.tunnels += 1
            head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            self.body(exchange.connection.start_tunnel(exchange, head, self))
            return
        self.gathered = exchange.take_body(self)
        if exchange.complete:
            self.body_end()

    def body(self, data: bytes) -> None:
        if self.tunnel:
            self.exchange.write(data)
        else:
            self.gathered += data

    def body_end(self) -> None:
        exchange = self.exchange
        if self.tunnel:
            exchange.connection.end_tunnel()
            return
        if exchange.received != len(self.gathered) or exchange.content_length not in (
            None,
            exchange.received,
        ):
            self.echo.misframed.append(exchange.content_length)
        self.echo.methods.append(exchange.method)
        self.echo.requests.append(Request(exchange.method, exchange.target, self.gathered))
        shown = (exchange.headers, exchange.host, exchange.authorization, exchange.given_id, self.gathered)
        exchange.answer(200, repr(shown).encode())

    def client_gone(self) -> None:
        """Its answer will not be read."""

    def pause_response(self) -> None:
        """It is in memory already."""

    def resume_response(self) -> None:
        """See `pause_response`."""


async def talk(reads: list[bytes]) -> tuple[list[Request], list[tuple[int, bytes]], bytes, bool]:
    """Sends these reads on one connection and the end after them.

    Returns:
        The requests as they were understood; the answers that a client reads; what it reads after an upgrade; and
        whether the server has closed by itself.
    """
    echo = Echo()
    transport = Transport(Server(echo, LIMITS)())
    for read in reads:
        transport.receive(read)
        if len(reads) < 50:
            await settle(transport)
    await settle(transport)
    assert not echo.misframed, "a request is complete and its body is not of the length it says"
    closed = transport.is_closing()
    transport.receive_eof()
    await settle(transport)
    sent, switch, tunnelled = bytes(transport.sent).partition(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert bool(switch) == bool(echo.tunnels)
    responses = read_responses(sent, echo.methods, True)
    assert all(response.whole for response in responses)
    answers = [
        (200, response.body) if response.status == 200 else (400, b"refused") for response in responses
    ]  # which of two faults is seen first depends on how much is read at once
    assert [status for status, _ in answers].count(200) == len(echo.requests)
    assert all(status == 200 for status, _ in answers[:-1]), "a request follows one that was refused"
    return echo.requests, answers, tunnelled, closed


async def check_reads(reads: list[bytes]) -> None:
    """Raises AssertionError where it matters how a client's bytes are cut, or where h11 reads them differently."""
    data = b"".join(reads)
    found = await talk(reads)
    for other in ([data], cut_anywhere(data, chance(data)), every_byte(data)):
        assert await talk(other) == found, f"{reads} is not {other}"
    for ours, theirs in zip(found[0], read_requests(data), strict=False):  # each ends at what it refuses
        check_request(ours, theirs)


def check_request(ours: Request, theirs: Request) -> None:
    """Raises AssertionError where we and h11 read different requests."""
    assert (ours.method, ours.body) == (theirs.method, theirs.body)
    assert theirs.target.endswith(ours.target) or ours.target == b"/", "a target changed"


def check(data: bytes) -> None:
    """The target of a fuzzer."""
    run(check_reads(data.split(CUT)))
