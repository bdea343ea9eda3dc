"""One connection to an instance: it carries one invocation at a time."""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import TYPE_CHECKING

import orjson

from martlet.errors import FunctionError
from martlet.http.exchange import Exchange, Header, status_line
from martlet.http.upstream import Upstream
from martlet.node.call import CLIENT_CLOSED, Call

if TYPE_CHECKING:
    from martlet.node.instance import Instance

RAISED = b"x-martlet-error"


class Slot(Upstream):
    """See the module. It tells its instance how each invocation ended."""

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self.instance = instance
        self.call: Call | None = None
        self.deadline = 0.0
        self.watched = False
        self.status = 0
        self._headers_kept: list[Header] | None = None
        self._kept = b""

    def run(self, call: Call) -> None:
        """Sends an invocation to the instance."""
        now = monotonic()
        call.sent = now
        self.call = call
        self.deadline = now + call.target.timeout
        self.status = 0
        self.instance.began(call)
        if not self.watched:
            self.instance.pool.node.clock.watch(self)
        self.send(call.exchange, call.passage.head, call.last)

    def on_head(self, exchange: Exchange, status: int, headers: list[Header]) -> bytes | None:
        """Stamps the response; a handler that raised becomes a problem document."""
        call = self.call
        assert call is not None
        self.status = status
        if headers is not self._headers_kept:
            kept = _kept(status, headers)
            if kept is None:
                return None
            self._headers_kept, self._kept = headers, kept
        if status == 101:
            self.deadline = float("inf")
        return b"%b%b%b%b" % (self._kept, call.target.stamp, call.last, call.timing(monotonic() - call.sent))

    def on_end(self, exchange: Exchange, kept: bytes | None) -> None:
        """The invocation is over."""
        call, self.call = self.call, None
        assert call is not None
        code = None
        if kept is not None:
            error = _raised(kept)
            code = error.code
            call.fail(error)
        self.instance.ended(self, call, self.status, code)

    def on_client_gone(self, exchange: Exchange) -> None:
        """Nobody waits any more: the connection is cut, which the function may notice."""
        call, self.call = self.call, None
        self.exchange = None
        self.closed = True
        self.transport.abort()
        if call is not None:
            self.instance.abandoned(self, call, CLIENT_CLOSED)

    def on_lost(self, exchange: Exchange | None, why: str, *, cut: bool) -> None:
        """The instance has closed the connection, or died, or does not speak HTTP."""
        call, self.call = self.call, None
        self.instance.lost(self, call, why, cut=cut)


def _kept(status: int, headers: list[Header]) -> bytes | None:
    """Returns the status line and the headers that go on to the client; None where the handler raised."""
    lines = [status_line(status)]
    for header in headers:
        name = header[0]
        if name[:2] == b"x-":
            if name == RAISED and status == 500:
                return None
            if name == b"x-request-id" or name.startswith((b"x-martlet-", b"x-faas-")):
                continue
        lines.append(b"%b: %b\r\n" % header)
    return b"".join(lines)


def _raised(body: bytes) -> FunctionError:
    """Reads what the shim says about an exception; an instance may have written anything there."""
    kind = message = None
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        document = orjson.loads(body)
        kind, message = document["type"], document["message"]
    # Anything but text may be nested so deeply that it cannot even be written down.
    if not (isinstance(kind, str) and isinstance(message, str)):
        kind, message = "Error", "the function raised an error and did not say which"
    kind, message = kind[:200], message[:4000]
    return FunctionError(f"{kind}: {message}" if message else kind, extra={"exception": kind})
