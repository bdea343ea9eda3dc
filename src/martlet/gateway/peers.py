"""The application behind the port for other machines of the cluster, who have proved who they are."""

from __future__ import annotations

import sys

from martlet.errors import MartletError, NotFound, Unavailable
from martlet.gateway.dispatch import Dispatch
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop
from martlet.http.upstream import HOP_BY_HOP
from martlet.node.arrivals import INVOKE, Arrivals
from martlet.node.endpoint import Endpoint
from martlet.node.node import Node
from martlet.storage.registry import RegistryView

LOAD = b"/_node/load"
"""What may be asked of a lane besides invocations: the rest of its interface is for its own machine."""
NODE = b"/_node/"


class Peers:
    """See the module; `Application` of that server.

    Args:
        node: of this lane.
        view: what the store holds.
        dispatch: finds the lane that runs an invocation.
        endpoint: of this lane.
        control: where management requests go; None where this machine does not take them.
    """

    def __init__(
        self, node: Node, view: RegistryView, dispatch: Dispatch, endpoint: Endpoint, control: Hop | None
    ) -> None:
        self._arrivals = Arrivals(node, view, dispatch.submit_here)
        self._endpoint = endpoint
        self._control = control

    def handle(self, exchange: Exchange) -> None:
        """Answers a request, or passes it to who does."""
        exchange.request_id = (exchange.given_id or b"").decode("ascii", "replace")
        target = exchange.target
        if target.startswith(INVOKE):
            self._arrivals.take(exchange)
        elif target == LOAD:
            self._endpoint.handle(exchange)
        elif target.startswith(NODE):
            exchange.problem(NotFound("other machines are not told that"))
        elif self._control is None:
            exchange.problem(Unavailable("this machine has not the role control"))
        else:
            self._manage(exchange, self._control)

    def max_body(self, exchange: Exchange) -> int:
        """Trusts the gateway of the other machine, which has bounded it."""
        return sys.maxsize

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        """Answers a request that is not HTTP as it should be."""
        exchange.problem(error)

    def _manage(self, exchange: Exchange, control: Hop) -> None:
        lines = [b"%b %b HTTP/1.1\r\n" % (exchange.method, exchange.target)]
        lines += [b"%b: %b\r\n" % header for header in exchange.headers if header[0] not in HOP_BY_HOP]
        exchange.upgrade = False
        control.send(exchange, b"".join(lines))
