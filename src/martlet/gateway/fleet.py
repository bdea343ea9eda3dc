"""The other machines of the cluster: which of them gets a call, and how this lane reaches it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Collection, Iterable
from time import monotonic
from typing import NamedTuple

from martlet.errors import FunctionCrashed, MartletError, Unavailable
from martlet.http.exchange import Exchange
from martlet.http.hop import Hop, over_tls, passed_on
from martlet.model import Node, Revision, Role
from martlet.node.arrivals import INVOKE
from martlet.node.call import SENDER, Call
from martlet.node.endpoint import AT
from martlet.node.withdrawal import Withdrawal
from martlet.peer_address import PeerAddress
from martlet.scheduling.candidates import candidates, need_of
from martlet.scheduling.placement import Candidate, Need, choose_node
from martlet.scheduling.shares import Shares
from martlet.storage.registry import RegistryView

DOUBT = 5.0
"""Seconds for which a machine that could not be reached gets nothing; the registry forgets it when it is gone."""
FAREWELL = 10.0
"""Seconds between two looks whether a machine that is on the list no more, and still runs something, answers: one that
hangs would never."""

CALM = 0.2
"""Seconds for which what machines say of themselves is not taken in anew. Of a thousand one says something every three
milliseconds, and what each said last is up to three seconds old anyway. Who comes or goes, and what is decided of
machines, is seen at once."""


class Options(NamedTuple):
    """The machines for a revision, as they last were."""

    revision: Revision
    need: Need
    nodes: list[Candidate]
    warm: bool

    @classmethod
    def among(
        cls, nodes: list[Node], revision: Revision, withdrawing: set[str], shares: Shares | None
    ) -> Options:
        """Works them out."""
        found = candidates(nodes, revision, withdrawing, shares)
        return cls(
            revision, need_of(revision), found, any(each.warm and not each.withdraws for each in found)
        )

    @property
    def offered(self) -> bool:
        """Whether any of them runs such functions at all."""
        return any(node.offers(self.need) for node in self.nodes)


class Fleet:
    """See the module.

    Args:
        view: where the nodes are known.
        shares: how many instances of a revision each of them may have.
        own: the id of this one.
        context: proves who we are, and checks who they are.
        withdrawal: whether this one gives its work to them.
        control: of this machine; None where it has not that role.

    Attributes:
        own: the id of this machine.
        again: gets a call that could not be sent.
        refused: gets a call that a machine (its id) has not begun, for lack of room, and the error.
        alone: no other machine runs functions.
        relieved: there is another machine that gives its work to nobody.
    """

    def __init__(
        self,
        view: RegistryView,
        shares: Callable[[Revision], Shares],
        own: str,
        context: ssl.SSLContext,
        withdrawal: Withdrawal,
        control: Hop | None = None,
    ) -> None:
        self.own = own
        self.again: Callable[[Call], None] = lambda call: call.fail(Unavailable())
        self.refused: Callable[[str, Call, MartletError], None] = lambda _by, call, error: call.fail(error)
        self._view = view
        self._shares = shares
        self._withdrawal = withdrawal
        self._control = control
        self._context = context
        self._hops: dict[tuple[str, PeerAddress], Hop] = {}
        self._doubtful: dict[str, float] = {}
        self._options: dict[str, Options] = {}
        self._listed: dict[str, Node] = {}
        self._forgotten: dict[str, Node] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self._sender = b""  # where it runs functions itself: their instances may be wanted here
        self._turn = 0
        self._taken_in, self._decided = -CALM, 0
        self._taking_in: asyncio.TimerHandle | None = None
        self.alone, self.relieved = True, False
        view.on_nodes.append(self._said)
        withdrawal.on_stopping.append(self._changed)
        self._changed()

    def choose(self, revision: Revision, without: Collection[str] = ()) -> Node | None:
        """Returns the machine that runs a request for a revision; this one, too; None where none has room.

        Args:
            revision: what is to run.
            without: the ids of those that were tried.
        """
        options = self._options.get(revision.id)
        if options is None or options.revision is not revision:
            options = self._options[revision.id] = self._work_out(revision)
        turn = 0  # while it is warm nowhere all gateways choose alike, so that it starts once
        if options.warm:
            turn = self._turn = self._turn + 1
        nodes = [each for each in options.nodes if each.name not in without] if without else options.nodes
        chosen = choose_node(options.need, nodes, turn)
        if chosen is None:
            return None
        return self._view.nodes.get(chosen.name) or self._forgotten.get(chosen.name)

    def expects(self, revision: Revision) -> bool:
        """Whether a machine may have instances of a revision that cannot be reached now, or whose lanes all start."""
        return any(share and self._may_return(name) for name, share in self._shares(revision).items())

    def is_own(self, node: Node) -> bool:
        """Whether it is this machine."""
        return node.id == self.own

    def forward(self, call: Call, node: Node) -> None:
        """Lets another machine run a call. One that cannot be reached gives it back to ``again``, unsent."""
        identity = b"x-martlet-revision: %b\r\n%b" % (call.target.id.encode(), self._sender)
        hop = self._hop(node)
        hop.send(call.exchange, call.passage.forwarded(INVOKE, identity), call.last)

    def manage(self, exchange: Exchange, head: bytes, last: bytes) -> None:
        """Passes a management request to control, here or elsewhere; where one withdraws, only if there is no other."""
        exchange.context = (head, last)
        asked = b"%b: %b\r\n" % (SENDER, self.own.encode())
        withdrawing = self._withdrawing()
        others = [node for node in self._living() if Role.CONTROL in node.roles and not self.is_own(node)]
        staying = [node for node in others if node.id not in withdrawing]
        if self._control is not None and (self.own not in withdrawing or not staying):
            self._control.send(exchange, head, last)
        elif others:
            self._hop(min(staying or others, key=lambda node: node.id)).send(exchange, head, asked + last)
        else:
            exchange.problem(Unavailable("no machine with the role control answers; see `martlet nodes`"))

    def relay(self, exchange: Exchange) -> None:
        """Passes on what control of this machine asks of another node (see `AT`)."""
        name, _, rest = exchange.target[len(AT) :].partition(b"/")
        node = self._view.nodes.get(name.decode("ascii", "replace"))
        if node is None or node.peer is None:
            exchange.problem(Unavailable("the node has left the cluster"))
            return
        self._hop(node).send(exchange, passed_on(exchange, b"/_node/" + rest))

    def close(self) -> None:
        """Closes the connections that carry nothing."""
        if self._taking_in is not None:
            self._taking_in.cancel()
        for hop in self._hops.values():
            hop.close()

    # -- inside

    def _work_out(self, revision: Revision) -> Options:
        withdrawing, shares = self._withdrawing(), self._shares(revision)
        options = Options.among(self._running(self._living()), revision, withdrawing, shares)
        if options.offered:
            return options
        # Rather one that etcd has lost sight of than none: it may be well, and only etcd cut off. It goes on with the
        # share that it had, whatever others think.
        options = Options.among([*self._forgotten.values()], revision, withdrawing, None)
        if options.offered:
            return options
        # And rather one that could not be reached a moment ago.
        reachable = filter(self._has_way_to, self._view.nodes.values())
        return Options.among(self._running(reachable), revision, withdrawing, shares)

    def _living(self) -> list[Node]:
        """Returns the machines that can be reached, as far as is known."""
        return [
            node
            for node in self._view.nodes.values()
            if self._has_way_to(node) and not self._is_doubtful(node.id)
        ]

    def _is_doubtful(self, name: str) -> bool:
        return self._doubtful.get(name, 0.0) >= monotonic()

    def _may_return(self, name: str) -> bool:
        node = self._view.nodes.get(name)
        if node is None or self.is_own(node) or node.stopping:
            return False
        return self._is_doubtful(name) or all(lane.state != "ready" for lane in node.lanes)

    def _running(self, nodes: Iterable[Node]) -> list[Node]:
        """Returns those that run functions and go on doing so; this one in any case."""
        return [
            node for node in nodes if Role.NODE in node.roles and (self.is_own(node) or not node.stopping)
        ]

    def _has_way_to(self, node: Node) -> bool:
        return self.is_own(node) or node.peer is not None

    def _withdrawing(self) -> set[str]:
        """Returns the ids of the machines that give their work to others."""
        withdrawing = self._view.withdrawing
        return {*withdrawing, self.own} if self._withdrawal.stopping else withdrawing

    def _said(self) -> None:
        """Somebody came, went, or said how it is."""
        loop = asyncio.get_running_loop()
        view = self._view
        if (
            loop.time() - self._taken_in >= CALM
            or view.decided != self._decided
            or view.nodes.keys() != self._listed.keys()
        ):
            self._changed()
        elif self._taking_in is None:
            self._taking_in = loop.call_at(self._taken_in + CALM, self._changed)

    def _changed(self) -> None:
        """Takes in what has been said."""
        if self._taking_in is not None:
            self._taking_in.cancel()
            self._taking_in = None
        self._taken_in = asyncio.get_running_loop().time()
        self._decided = self._view.decided
        self._options.clear()
        nodes = self._view.nodes.values()
        own = self._view.nodes.get(self.own)
        runs = own is not None and Role.NODE in own.roles
        self._sender = b"%b: %b\r\n" % (SENDER, self.own.encode()) if runs else b""
        self.alone = not any(
            node.peer and Role.NODE in node.roles and not self.is_own(node) for node in nodes
        )
        withdrawing = self._withdrawing()
        self.relieved = any(not self.is_own(node) and node.id not in withdrawing for node in nodes)
        known = {(node.id, node.peer) for node in nodes}
        for key in self._hops.keys() - known:
            hop = self._hops.pop(key)
            hop.close()
            farewell = asyncio.get_running_loop().create_task(_see_off(hop))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
        self._forgotten = {
            name: node
            for name, node in {**self._forgotten, **self._listed}.items()
            if name not in self._view.nodes and node.peer is not None and Role.NODE in node.roles
        }
        for node in nodes:
            before = self._listed.get(node.id)
            if before is not None and before.started != node.started:
                self._doubtful.pop(node.id, None)  # it has been started anew since
        self._listed = dict(self._view.nodes)

    def _hop(self, node: Node) -> Hop:
        assert node.peer is not None
        key = node.id, node.peer
        if key not in self._hops:
            self._hops[key] = Hop(
                over_tls(node.peer.host, node.peer.port, node.id, self._context),
                f"node {node.id}",
                lambda unsent: self._unreachable(node.id, unsent),
                _broken_off,
                lambda exchange, error: self.refused(node.id, exchange.context, error),
            )
        return self._hops[key]

    def _unreachable(self, name: str, unsent: list[Exchange]) -> None:
        self._doubtful[name] = monotonic() + DOUBT
        self._forgotten.pop(name, None)
        self._options.clear()
        asyncio.get_running_loop().call_later(DOUBT, self._options.clear)
        for exchange in unsent:
            match exchange.context:
                case Call() as call:
                    call.refused_by += (name,)
                    self.again(call)
                case (head, last):
                    self.manage(exchange, head, last)
                case _:
                    exchange.problem(Unavailable(f"node {name} does not answer"))


async def _see_off(hop: Hop) -> None:
    """Lets a machine that has left finish what it runs, for as long as it answers."""
    while hop.busy:
        await asyncio.sleep(FAREWELL)
        if not await hop.answers():
            hop.cut()
            return


def _broken_off(exchange: Exchange) -> None:
    """Its machine is gone, and nobody knows how far it came."""
    if isinstance(exchange.context, Call):
        exchange.context.fail(FunctionCrashed("the machine that ran it is gone"))
    elif not exchange.gone:
        exchange.problem(Unavailable("the machine that was asked is gone; it may have done it"))
