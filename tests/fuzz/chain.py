"""From the client to the function's own parser: what one hop takes for a request, the next does too."""

from pathlib import Path

from martlet.errors import MartletError
from martlet.http.exchange import Exchange, Header
from martlet.http.hop import Hop, HopConnection, over_unix
from martlet.http.server import Server
from martlet.model import FunctionConfig, Revision
from martlet.node.call import Call
from martlet.node.passage import Passage
from martlet.node.target import Target
from martlet.runtimes.python._martlet_python.http1 import Parser
from tests.fuzz import server
from tests.fuzz.oracle import Request, read_requests, read_responses
from tests.fuzz.server import LIMITS, check_request
from tests.fuzz.wire import CUT, Transport, run, settle

SEEDS = [
    *server.SEEDS,
    b"POST / HTTP/1.1\r\nhost: h\r\nx-martlet-key: 1\r\nx-faas-revision: 9\r\nauthorization: Bearer k\r\n"
    b"x-forwarded-for: 192.0.2.7\r\ncontent-length: 1\r\nkeep-alive: 1\r\n\r\nx",
]
TARGET = Target(Revision(function="f", number=3, config=FunctionConfig(), code="0" * 64, created=0))
OURS = {"x-faas-function": "f", "x-faas-revision": "3", "x-request-id": "r1"}


class Chain:
    """Forwards each request to one instance, which answers it as soon as it is whole."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.methods: list[bytes] = []
        self._hop = Hop(over_unix(Path("/nowhere")), "the instance")
        self._connection: HopConnection | None = None
        self._headers: list[Header] | None = None

    def handle(self, exchange: Exchange) -> None:
        exchange.request_id = "r1"
        exchange.upgrade = False
        if self._connection is None or self._connection.closed:
            self._connection = HopConnection(self._hop)
            self._peer = Transport(self._connection)
            self._answered = 0
            self._hop.free(self._connection)
        self.methods.append(exchange.method)
        if exchange.headers is not self._headers:
            self._headers = exchange.headers
            self._passage = Passage.of_client(exchange, TARGET, exchange.target, strip_key=True)
        call = Call(exchange, self._passage)
        self._hop.send(exchange, self._passage.head, call.last)

    def max_body(self, exchange: Exchange) -> int:
        return LIMITS.max_body

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        self.methods.append(exchange.method or b"GET")
        exchange.problem(error)

    def serve(self) -> bool:
        """Has the instance read what came, and answer it once it is whole; returns whether it has.

        Raises:
            BadRequest: our own request is refused by the next hop.
        """
        if self._connection is None or self._connection.closed:
            return False
        parser = Parser(LIMITS.max_body)
        parser.feed(bytes(self._peer.sent[self._answered :]))
        head, body = parser.head(), b""
        if head is None:
            return False
        while piece := parser.piece():
            body += piece
        if piece is None:
            return False
        assert not parser.buffered, "something follows a request that is not answered"
        assert {name: head.fields.get(name) for name in OURS} == OURS
        assert not [name for name in head.fields if name.startswith("x-martlet-") or name == "authorization"]
        self.requests.append(Request(head.method.encode(), head.target.encode("latin-1"), body))
        self._answered = len(self._peer.sent)
        self._peer.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True


async def check_reads(reads: list[bytes]) -> None:
    """Raises AssertionError where an instance gets something else than the client has sent."""
    chain = Chain()
    client = Transport(Server(chain, LIMITS)())
    for read in reads:
        client.receive(read)
        await settle(client)
        while chain.serve():
            await settle(client)
    responses = read_responses(bytes(client.sent), chain.methods, client.is_closing())
    answered = [response for response in responses if response.status == 200]
    assert len(answered) == len(chain.requests)
    for ours, theirs in zip(chain.requests, read_requests(b"".join(reads)), strict=False):
        check_request(ours, theirs)


def check(data: bytes) -> None:
    """The target of a fuzzer."""
    run(check_reads(data.split(CUT)))
