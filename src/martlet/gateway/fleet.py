"""The other machines of the cluster: which of them gets a call, and how this lane reaches it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from martlet.errors import FunctionCrashed, Unavailable
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, over_tls
from martlet.http.upstream import HOP_BY_HOP
from martlet.model import Node, Revision, Role
from martlet.node.arrivals import INVOKE
from martlet.node.call import Call
from martlet.node.endpoint import AT
from martlet.peer_address import PeerAddress
from martlet.scheduling.candidates import candidates, need_of
from martlet.scheduling.placement import Candidate, Need, choose_node
from martlet.storage.registry import RegistryView

DOUBT = 5.0
"""Seconds for which a machine that could not be reached gets nothing; the registry forgets it when it is gone."""
FAREWELL = 10.0
"""Seconds that a machine which has left may take for what it runs still: one that hangs would take for ever."""


class Options(NamedTuple):
    """The machines for a revision, as they last were."""

    revision: Revision
    need: Need
    nodes: list[Candidate]
    warm: bool

    @classmethod
    def among(cls, nodes: list[Node], revision: Revision) -> Options:
        """Works them out."""
        found = candidates(nodes, revision)
        return cls(revision, need_of(revision), found, any(each.warm for each in found))


class Fleet:
    """See the module.

    Args:
        view: where the nodes are known.
        own: the id of this one.
        context: proves who we are, and checks who they are.
    """

    def __init__(self, view: RegistryView, own: str, context: ssl.SSLContext) -> None:
        self.again: Callable[[Call], None] = lambda call: call.fail(Unavailable())
        self._view = view
        self._own = own
        self._context = context
        self._hops: dict[tuple[str, PeerAddress], Hop] = {}
        self._doubtful: dict[str, float] = {}
        self._options: dict[str, Options] = {}
        self._turn = 0
        self.alone = True
        view.on_nodes.append(self._changed)
        self._changed()

    def choose(self, revision: Revision) -> Node | None:
        """Returns the machine that runs a request for a revision; this one, too; None where none has room."""
        options = self._options.get(revision.id)
        if options is None or options.revision is not revision:
            runners = [node for node in self._living() if Role.NODE in node.roles]
            options = self._options[revision.id] = Options.among(runners, revision)
        turn = 0  # while it is warm nowhere all gateways choose alike, so that it starts once
        if options.warm:
            turn = self._turn = self._turn + 1
        chosen = choose_node(options.need, options.nodes, turn)
        return None if chosen is None else self._view.nodes.get(chosen.name)

    def is_own(self, node: Node) -> bool:
        """Whether it is this machine."""
        return node.id == self._own

    def forward(self, call: Call, node: Node) -> None:
        """Lets another machine run a call. One that cannot be reached gives it back to ``again``, unsent."""
        identity = b"x-martlet-revision: %b\r\n" % call.target.id.encode()
        hop = self._hop(node)
        hop.send(call.exchange, call.passage.forwarded(INVOKE, identity), call.last)

    def manage(self, exchange: Exchange, head: bytes, last: bytes) -> None:
        """Passes a management request to a machine that takes them."""
        exchange.context = (head, last)
        for node in sorted(self._living(), key=lambda node: node.id):
            if Role.CONTROL in node.roles and not self.is_own(node):
                self._hop(node).send(exchange, head, last)
                return
        exchange.problem(Unavailable("no machine with the role control answers; see `martlet nodes`"))

    def relay(self, exchange: Exchange) -> None:
        """Passes on what control of this machine asks of another node (see `AT`)."""
        name, _, rest = exchange.target[len(AT) :].partition(b"/")
        node = self._view.nodes.get(name.decode("ascii", "replace"))
        if node is None or node.peer is None:
            exchange.problem(Unavailable("the node has left the cluster"))
            return
        lines = (b"%b: %b\r\n" % header for header in exchange.headers if header[0] not in HOP_BY_HOP)
        head = b"%b /_node/%b HTTP/1.1\r\n%b" % (exchange.method, rest, b"".join(lines))
        self._hop(node).send(exchange, head)

    def close(self) -> None:
        """Closes the connections that carry nothing."""
        for hop in self._hops.values():
            hop.close()

    # -- inside

    def _living(self) -> list[Node]:
        """Returns the machines that can be reached, as far as is known."""
        now = monotonic()
        return [
            node
            for node in self._view.nodes.values()
            if self.is_own(node) or (node.peer is not None and self._doubtful.get(node.id, 0.0) < now)
        ]

    def _changed(self) -> None:
        """Somebody came, went, or said how it is."""
        self._options.clear()
        nodes = self._view.nodes.values()
        self.alone = not any(
            node.peer and Role.NODE in node.roles and not self.is_own(node) for node in nodes
        )
        known = {(node.id, node.peer) for node in nodes}
        for key in self._hops.keys() - known:
            hop = self._hops.pop(key)
            hop.close()
            asyncio.get_running_loop().call_later(FAREWELL, hop.cut)

    def _hop(self, node: Node) -> Hop:
        assert node.peer is not None
        key = node.id, node.peer
        if key not in self._hops:
            self._hops[key] = Hop(
                over_tls(node.peer.host, node.peer.port, node.id, self._context),
                f"node {node.id}",
                lambda unsent: self._unreachable(node.id, unsent),
                _broken_off,
            )
        return self._hops[key]

    def _unreachable(self, name: str, unsent: list[Exchange]) -> None:
        self._doubtful[name] = monotonic() + DOUBT
        self._options.clear()
        asyncio.get_running_loop().call_later(DOUBT, self._options.clear)
        for exchange in unsent:
            match exchange.context:
                case Call() as call:
                    self.again(call)
                case (head, last):
                    self.manage(exchange, head, last)
                case _:
                    exchange.problem(Unavailable(f"node {name} does not answer"))


def _broken_off(exchange: Exchange) -> None:
    """Its machine is gone, and nobody knows how far it came."""
    if isinstance(exchange.context, Call):
        exchange.context.fail(FunctionCrashed("the machine that ran it is gone"))
    elif not exchange.gone:
        exchange.problem(Unavailable("the machine that was asked is gone; it may have done it"))
