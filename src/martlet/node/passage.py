"""What follows from the head of a request to a function, worked out once for all requests that repeat it."""

from __future__ import annotations

from martlet.http.exchange import Exchange
from martlet.http.upstream import HOP_BY_HOP
from martlet.node.target import Target

NOT_FOR_FUNCTIONS = HOP_BY_HOP | {b"expect", b"x-request-id"}
ATTEMPT = b"x-faas-attempt"
"""Which attempt at an asynchronous invocation it is; from a lane, as it is of ours, and no client may say it."""
_OURS = (b"x-martlet-", b"x-faas-")
_FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-prefix", b"x-forwarded-proto")


class Passage:
    """See the module. Made by `of_client` or `of_lane`.

    Attributes:
        target: the revision the request is for.
        head: the request line and headers as the instance gets them, without the request's id and framing.
    """

    __slots__ = ("_method", "_passed_on", "_path", "head", "target")

    def __init__(self, target: Target, method: bytes, path: bytes, passed_on: bytes) -> None:
        """Makes one of its parts; ``passed_on`` are the header lines that the client sent or we add."""
        self.target = target
        self._method, self._path, self._passed_on = method, path, passed_on
        self.head = self._head(b"", target.head)

    @classmethod
    def of_client(cls, exchange: Exchange, target: Target, path: bytes, strip_key: bool) -> Passage:
        """Works it out for a request from outside.

        Args:
            exchange: the first request with this head.
            target: the revision it is for.
            path: what the function sees as its request target.
            strip_key: the ``authorization`` header is a key of ours and not the function's business.
        """
        return cls(target, exchange.method, path, passed_on(exchange, path, strip_key))

    @classmethod
    def of_lane(cls, exchange: Exchange, target: Target, path: bytes) -> Passage:
        """Works it out for a request that another lane passes on, with all that it has said of the client."""
        lines = _lines(exchange, ())
        attempt = exchange.header(ATTEMPT)
        if attempt is not None:
            lines += b"%b: %b\r\n" % (ATTEMPT, attempt)
        return cls(target, exchange.method, path, lines)

    def forwarded(self, prefix: bytes, identity: bytes) -> bytes:
        """Returns the head for another lane that is to run the request.

        Args:
            prefix: goes before the path.
            identity: header lines in place of those that tell an instance who it is.
        """
        return self._head(prefix, identity)

    def _head(self, prefix: bytes, identity: bytes) -> bytes:
        return b"%b %b%b HTTP/1.1\r\n%b%b" % (self._method, prefix, self._path, identity, self._passed_on)


def passed_on(exchange: Exchange, path: bytes, strip_key: bool, withheld: tuple[bytes, ...] = ()) -> bytes:
    """Returns the header lines of a request from outside that a function gets, with those that we add.

    Args:
        exchange: the request.
        path: what the function sees as its request target.
        strip_key: the ``authorization`` header is a key of ours and not the function's business.
        withheld: further headers that are not.
    """
    key = (b"authorization",) if strip_key else ()
    return _lines(exchange, (*key, *withheld, *_FORWARDED)) + _forwarded(exchange, path)


def _lines(exchange: Exchange, withheld: tuple[bytes, ...]) -> bytes:
    """Returns the request's header lines, less what is not the function's business."""
    return b"".join(
        b"%b: %b\r\n" % header
        for header in exchange.headers
        if header[0] not in NOT_FOR_FUNCTIONS
        and header[0] not in withheld
        and not header[0].startswith(_OURS)
    )


def _forwarded(exchange: Exchange, path: bytes) -> bytes:
    """Returns the header lines that say where the request came from; what proxies before us have said is kept."""
    before = b", ".join(value for name, value in exchange.headers if name == b"x-forwarded-for")
    peer = exchange.connection.peer.encode()
    root = (exchange.header(b"x-forwarded-prefix") or b"") + exchange.target.removesuffix(path).partition(
        b"?"
    )[0]
    by_tls = exchange.header(b"x-forwarded-proto") == b"https"  # which a proxy has ended: we speak none
    return (
        b"x-forwarded-for: %b\r\nx-forwarded-host: %b\r\nx-forwarded-prefix: %b\r\nx-forwarded-proto: %b\r\n"
        % (
            b"%b, %b" % (before, peer) if before else peer,
            exchange.host or b"",
            root,
            b"https" if by_tls else b"http",
        )
    )
