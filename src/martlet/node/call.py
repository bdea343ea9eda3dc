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

    def head(self) -> list[bytes]:
        """Returns the head of the request as the instance gets it."""
        exchange = self.exchange
        lines = [b"%b %b HTTP/1.1\r\n" % (exchange.method, self.path), self.target.head]
        forwarded = exchange.connection.peer.encode()
        for header in exchange.headers:
            name = header[0]
            if name in NOT_FOR_FUNCTIONS:
                continue
            if name[:2] == b"x-":
                if name.startswith((b"x-martlet-", b"x-faas-")):
                    continue
                if name == b"x-forwarded-for":
                    forwarded = b"%b, %b" % (header[1], forwarded) if forwarded else header[1]
                    continue
            elif name == b"authorization" and self.strip_key:
                continue
            lines.append(b"%b: %b\r\n" % header)
        lines.append(
            b"x-request-id: %b\r\nx-forwarded-for: %b\r\nx-forwarded-host: %b\r\nx-forwarded-proto: http\r\n"
            % (exchange.request_id.encode(), forwarded, exchange.host or b"")
        )
        return lines

    def fail(self, error: MartletError) -> None:
        """Answers an error, with the stamp of the revision."""
        if not self.exchange.gone:
            self.exchange.problem(error, ((b"x-faas-revision", b"%d" % self.target.revision.number),))
