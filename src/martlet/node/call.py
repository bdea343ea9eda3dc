"""One invocation on its way through a node."""

from __future__ import annotations

from time import monotonic, time

from martlet.errors import MartletError
from martlet.http.exchange import Exchange
from martlet.http.upstream import HOP_BY_HOP
from martlet.node.target import Target

NOT_FOR_FUNCTIONS = HOP_BY_HOP | {b"expect", b"x-request-id", b"x-forwarded-host", b"x-forwarded-proto"}
CLIENT_CLOSED = 499
"""The status recorded (never sent) for a request whose client left."""


class Call:
    """An exchange that is an invocation of a target.

    Attributes:
        path: what the function sees as its request target.
        strip_key: the ``authorization`` header is a key of ours and not the function's business.
        arrived: `monotonic` when the node got it.
        sent: `monotonic` when an instance got it; 0.0 before.
        start: seconds of its wait that were the start of an instance.
        cold: it had to wait for an instance to start.
    """

    __slots__ = ("arrived", "cold", "exchange", "path", "sent", "start", "strip_key", "target")

    def __init__(self, exchange: Exchange, target: Target, path: bytes, strip_key: bool) -> None:
        self.exchange = exchange
        self.target = target
        self.path = path
        self.strip_key = strip_key
        self.arrived = exchange.began
        self.sent = 0.0
        self.start = 0.0
        self.cold = False

    @property
    def started_at(self) -> float:
        """When it arrived, seconds since the epoch."""
        return time() - (monotonic() - self.arrived)

    @property
    def queue(self) -> float:
        """Seconds it waited for a slot, less what was the start of an instance."""
        return max(0.0, (self.sent or monotonic()) - self.arrived - self.start)

    def head(self, prefix: bytes = b"", identity: bytes | None = None) -> list[bytes]:
        """Returns the head of the request as the instance gets it.

        Args:
            prefix: goes before the path, where another lane is to run the call.
            identity: header lines in place of those that tell an instance who it is.
        """
        exchange = self.exchange
        kept = exchange.connection.kept
        if kept is None or kept[0] is not exchange.headers or kept[1] is not self.strip_key:
            kept = exchange.connection.kept = (exchange.headers, self.strip_key, self._passed_on())
        head = b"%b %b%b HTTP/1.1\r\n%bx-request-id: %b\r\n%b" % (
            exchange.method,
            prefix,
            self.path,
            self.target.head if identity is None else identity,
            exchange.request_id.encode(),
            kept[2],
        )
        return [head]

    def _passed_on(self) -> bytes:
        """Returns the client's header lines, less what is not the function's business, and where they came from."""
        exchange = self.exchange
        lines = []
        forwarded = exchange.connection.peer.encode()
        for header in exchange.headers:
            name = header[0]
            if name in NOT_FOR_FUNCTIONS or name.startswith((b"x-martlet-", b"x-faas-")):
                continue
            if name == b"authorization" and self.strip_key:
                continue
            if name == b"x-forwarded-for":
                forwarded = b"%b, %b" % (header[1], forwarded) if forwarded else header[1]
                continue
            lines.append(b"%b: %b\r\n" % header)
        lines.append(
            b"x-forwarded-for: %b\r\nx-forwarded-host: %b\r\nx-forwarded-proto: http\r\n"
            % (forwarded, exchange.host or b"")
        )
        return b"".join(lines)

    def fail(self, error: MartletError) -> None:
        """Answers an error, with the stamp of the revision."""
        if not self.exchange.gone:
            self.exchange.problem(error, ((b"x-faas-revision", b"%d" % self.target.revision.number),))
