"""A request that nobody's connection has brought: it comes from inside, and its response is gathered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from martlet.http.exchange import Exchange, Header

if TYPE_CHECKING:
    from martlet.http.connection import ServerConnection


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    Attributes:
        status: of the response; 0 where it broke off before its end.
        headers: in lower case, in their order.
        body: None where it is over the limit.
    """

    status: int
    headers: tuple[Header, ...]
    body: bytes | None

    def header(self, name: bytes) -> bytes | None:
        """Returns the first header of that name (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


class Inward:
    """See the module. To the exchange it is what a `ServerConnection` is, as far as that is asked without upgrades.

    Args:
        method: of the request.
        body: of the request, all of it.
        request_id: of the request.
        at_most: bytes of the response's body that are gathered.
    """

    peer = ""

    def __init__(self, method: bytes, body: bytes, request_id: str, at_most: int) -> None:
        self.kept: Any = None
        self.exchange = Exchange(cast("ServerConnection", self), monotonic(), [])
        self.exchange.method = method
        self.exchange.content_length = self.exchange.received = len(body)
        self.exchange.chunks = [body]
        self.exchange.complete = True
        self.exchange.request_id = request_id
        self._at_most = at_most
        self._status = 0
        self._headers: tuple[Header, ...] = ()
        self._body = bytearray()
        self._too_large = False
        self._response: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

    async def response(self) -> Response:
        """Waits for the response; whoever is cancelled here wants it no more, which those who work for it hear."""
        try:
            return await self._response
        except asyncio.CancelledError:
            exchange = self.exchange
            exchange.gone = True
            if exchange.sink is not None:
                exchange.sink.client_gone()
            raise

    # -- the exchange's side

    def start_response(
        self, exchange: Exchange, head: bytes, length: int | None, body: bytes, last: bool
    ) -> None:
        """See `Exchange.start`."""
        line, *lines = head.removesuffix(b"\r\n").split(b"\r\n")
        self._status = int(line.split(b" ", 2)[1])
        self._headers = tuple(_header(each) for each in lines)
        self.write_body(exchange, body, last)

    def write_body(self, exchange: Exchange, data: bytes, last: bool) -> None:
        """See `Exchange.write`."""
        self._too_large = self._too_large or len(self._body) + len(data) > self._at_most
        if self._too_large:
            self._body.clear()
        else:
            self._body += data
        if last:
            self._end(self._status)

    def abort(self) -> None:
        """See `Exchange.abort`."""
        self._end(0)

    def pause_reading(self) -> None:
        """The request is here as a whole."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def _end(self, status: int) -> None:
        self.exchange.sink = None
        if not self._response.done():
            body = None if self._too_large else bytes(self._body)
            self._response.set_result(Response(status, self._headers, body))


def _header(line: bytes) -> Header:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip()
