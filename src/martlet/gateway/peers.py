"""The application behind the port for other machines of the cluster, who have proved who they are."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from martlet.errors import MartletError, NotFound, Unavailable
from martlet.gateway.dispatch import Dispatch
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, over_unix, passed_on
from martlet.node.arrivals import INVOKE, Arrivals
from martlet.node.endpoint import Endpoint
from martlet.node.node import Node
from martlet.storage.registry import RegistryView

LOAD = b"/_node/load"
OF_LANE = re.compile(
    rb"GET /_node/lane-([0-9]{1,3})/((?:instances|stats|scaling|logs|invocations)(?:[/?].*)?)"
    rb"|DELETE /_node/lane-([0-9]{1,3})/(instances/.*)"
)
"""What may be asked of a lane besides invocations and loads: the rest of its interface is for its own machine."""
NODE = b"/_node/"


class Peers:
    """See the module; `Application` of that server.

    Args:
        node: of this lane.
        view: what the store holds.
        dispatch: finds the lane that runs an invocation.
        endpoint: of this lane.
        control: where management requests go; None where this machine does not take them.
        run: the folder of the lanes' private sockets.
    """

    def __init__(
        self,
        node: Node,
        view: RegistryView,
        dispatch: Dispatch,
        endpoint: Endpoint,
        control: Hop | None,
        run: Path,
    ) -> None:
        self._arrivals = Arrivals(node, view, dispatch.submit_here)
        self._endpoint = endpoint
        self._control = control
        self._lane = node.lane
        self._lanes = [Hop(over_unix(run / f"lane-{n}.sock"), f"lane-{n}") for n in range(node.lanes)]

    def handle(self, exchange: Exchange) -> None:
        """Answers a request, or passes it to who does."""
        exchange.request_id = (exchange.given_id or b"").decode("ascii", "replace")
        target = exchange.target
        if target.startswith(INVOKE):
            self._arrivals.take(exchange)
        elif target == LOAD:
            self._endpoint.handle(exchange)
        elif target.startswith(NODE):
            self._ask(exchange)
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

    def _ask(self, exchange: Exchange) -> None:
        """Lets a lane of this machine say what it has."""
        asked = OF_LANE.fullmatch(b"%b %b" % (exchange.method, exchange.target))
        if asked is None:
            exchange.problem(NotFound("other machines are not told that"))
            return
        lane, target = int(asked[1] or asked[3]), NODE + (asked[2] or asked[4])
        if lane == self._lane:
            self._endpoint.answer(exchange, target)
        elif lane < len(self._lanes):
            self._lanes[lane].send(exchange, passed_on(exchange, target))
        else:
            exchange.problem(NotFound(f"there is no lane {lane} here"))

    def _manage(self, exchange: Exchange, control: Hop) -> None:
        exchange.upgrade = False
        control.send(exchange, passed_on(exchange, exchange.target))
