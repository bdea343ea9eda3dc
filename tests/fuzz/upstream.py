"""What an instance answers: passed on as valid HTTP, or not at all; never two responses to one request.

An input is one letter for the method of each request (see `METHODS`), then the response to each, in reads.
"""

from pathlib import Path

from martlet.errors import MartletError
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, HopConnection, over_unix
from martlet.http.server import Server
from tests.fuzz.oracle import read_responses
from tests.fuzz.server import LIMITS
from tests.fuzz.wire import CUT, Transport, chance, cut_anywhere, every_byte, run, settle

NEXT = b"\x1d"
"""Separates the responses of an input."""

UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\n"
METHODS = {
    ord("G"): (b"GET", b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"),
    ord("H"): (b"HEAD", b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n"),
    ord("P"): (b"POST", b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi"),
    ord("1"): (b"GET", b"GET / HTTP/1.0\r\nhost: h\r\n\r\n"),
    ord("U"): (b"GET", b"GET / HTTP/1.1\r\nhost: h\r\n" + UPGRADE + b"\r\n"),
}
PLAIN = b"HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 3\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE + b"\r\n"
SEEDS = [
    NEXT.join([b"GGGPG", PLAIN + b"abc", PLAIN + b"def", PLAIN + b"ge" + CUT + b"hi", PLAIN + b"klm", PLAIN]),
    NEXT.join([b"GHGH", PLAIN + b"abc", PLAIN, PLAIN + b"def" + PLAIN + b"bad", PLAIN]),
    NEXT.join(
        [b"G1", CHUNKED + b"3\r\nabc\r\n" + CUT + b"0\r\n\r\n", CHUNKED + b"1\r\na\r\n0\r\nt: 1\r\n\r\n"]
    ),
    NEXT.join(
        [
            b"GG",
            b"HTTP/1.0 200 OK\r\n\r\nto the end",
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + PLAIN + b"abc",
        ]
    ),
    NEXT.join([b"UG", SWITCH + b"early" + CUT + b"later", SWITCH]),
    NEXT.join(
        [b"GGG", b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 304 No\r\ncontent-length: 3\r\n\r\n", PLAIN + b"abc"]
    ),
    NEXT.join([b"GG", PLAIN.replace(b"x: y", b"connection: close") + b"abc", PLAIN + b"abc"]),
]

Seen = tuple[int, list[tuple[bytes, bytes]], bytes, bool]
"""Status, headers, body of what a client reads, and whether it is whole. Status 0: nothing but the end."""


class Forward:
    """Sends every request to the newest connection of a hop."""

    def __init__(self) -> None:
        self.hop = Hop(over_unix(Path("/nowhere")), "the upstream")
        self.connection: HopConnection | None = None
        self.peer: Transport | None = None

    def connect(self, anew: bool) -> Transport:
        """Returns the other end of the connection that the next request takes."""
        if anew and self.connection is not None:
            self.connection.close()
            self.connection.closed = True
        if self.connection is None or self.connection.closed:
            self.connection = HopConnection(self.hop)
            self.peer = Transport(self.connection)
            self.hop.free(self.connection)
        assert self.peer is not None
        return self.peer

    def handle(self, exchange: Exchange) -> None:
        exchange.request_id = "r1"
        self.hop.send(exchange, b"%b %b HTTP/1.1\r\nhost: h\r\n" % (exchange.method, exchange.target))

    def max_body(self, exchange: Exchange) -> int:
        return LIMITS.max_body

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        raise AssertionError(f"our own request is refused: {error}")


async def ask(forward: Forward, letter: int, reads: list[bytes], anew: bool) -> Seen:
    """Sends one request on a client connection of its own and returns what the client sees."""
    method, request = METHODS.get(letter, METHODS[ord("G")])
    peer = forward.connect(anew)
    connection = forward.connection
    assert connection is not None
    client = Transport(Server(forward, LIMITS)())
    before = len(peer.sent)
    client.receive(request)
    assert peer.sent[before:].startswith(method), "the request is not sent"
    for read in reads:
        peer.receive(read)
        if len(reads) < 50:
            await settle(client, peer)
    if connection.exchange is not None:
        peer.receive_eof()
    await settle(client, peer)
    if client.sent.startswith(b"HTTP/1.1 101 "):
        assert letter == ord("U"), "switched and not asked to"
        return 101, [], bytes(client.sent), client.is_closing()
    seen = read_responses(bytes(client.sent), [method], client.is_closing())
    assert len(seen) <= 1, "more than one response"
    if not seen:
        assert client.is_closing(), "a client waits for nothing"
        return 0, [], b"", False
    response = seen[0]
    assert response.whole or client.is_closing(), "a client waits for the rest"
    framing = (b"content-length", b"transfer-encoding", b"connection")
    headers = [(name, value) for name, value in response.headers if name not in framing]
    whole = response.whole and not client.aborted  # a body that ends with the connection tells no other way
    return response.status, headers, response.body, whole


async def check_responses(letters: bytes, responses: list[list[bytes]]) -> None:
    """Raises AssertionError where a client sees what it must not, or where cuts or a kept connection matter."""
    kept, fresh, pieces = Forward(), Forward(), Forward()
    for letter, reads in zip(letters, responses, strict=False):
        seen = await ask(kept, letter, reads, anew=False)
        assert await ask(fresh, letter, reads, anew=True) == seen, "a kept connection makes a difference"
        data = b"".join(reads)
        for cuts in (every_byte(data), cut_anywhere(data, chance(data))):
            other = await ask(pieces, letter, cuts, anew=True)
            check_cuts(seen, other)


def check_cuts(seen: Seen, other: Seen) -> None:
    """Raises AssertionError where two clients were told different things.

    A fault behind a response is seen in time only where it comes in the same read, and a response that has begun
    when the fault is seen can only be cut off.
    """
    if 0 in (seen[0], other[0]) or 503 in (seen[0], other[0]):
        return
    assert seen[:2] == other[:2]
    if seen[3] and other[3]:
        assert seen[2] == other[2]
    else:
        assert seen[2].startswith(other[2]) or other[2].startswith(seen[2])


def check(data: bytes) -> None:
    """The target of a fuzzer."""
    letters, *responses = data.split(NEXT)
    run(check_responses(letters[:6], [response.split(CUT) for response in responses]))
