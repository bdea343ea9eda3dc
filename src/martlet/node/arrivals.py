"""Invocations that another lane or another machine has passed on."""

from __future__ import annotations

from collections.abc import Callable

from martlet.errors import FunctionNotFound, MartletError, Unavailable
from martlet.http.exchange import Exchange
from martlet.http.refusal import refuse
from martlet.model import Revision
from martlet.node.call import SENDER, Arrival, Call
from martlet.node.node import Node
from martlet.node.passage import Passage
from martlet.node.target import Target
from martlet.storage.registry import RegistryView

INVOKE = b"/_node/invoke"
MAX_TARGETS = 10_000


class Arrivals:
    """See the module.

    Args:
        node: of this lane.
        view: where revisions are looked up.
        submit: runs a call; may raise `MartletError`.
    """

    def __init__(self, node: Node, view: RegistryView, submit: Callable[[Call], None]) -> None:
        self._node = node
        self._view = view
        self._submit = submit
        self._targets: dict[str, Target] = {}

    def take(self, exchange: Exchange) -> None:
        """Runs the invocation that the request is (see "The node's own HTTP interface" in the design)."""
        revision_id = (exchange.header(b"x-martlet-revision") or b"").decode("ascii", "replace")
        target = self._targets.get(revision_id)
        # The same name and number may be another revision's by now: of a function deleted and made anew.
        if target is None or self._stored(target) is not target.revision:
            self._node.spawn(self._take_unknown(exchange, revision_id))
            return
        self._run(exchange, target)

    def _stored(self, target: Target) -> Revision | None:
        return self._view.revisions.get((target.function, target.revision.number))

    async def _take_unknown(self, exchange: Exchange, revision_id: str) -> None:
        name, _, number = revision_id.partition("@")
        if number.isdigit() and (name, int(number)) not in self._view.revisions:
            try:
                await self._view.lookup_function(name)
            except Unavailable as error:
                refuse(exchange, error, ())
                return
        revision = self._view.revisions.get((name, int(number))) if number.isdigit() else None
        if revision is None:
            exchange.problem(FunctionNotFound(f"there is no revision {revision_id!r}"))
            return
        if len(self._targets) > MAX_TARGETS:
            self._targets.clear()
        self._targets[revision_id] = Target(revision)
        self._run(exchange, self._targets[revision_id])

    def _run(self, exchange: Exchange, target: Target) -> None:
        call = Arrival(exchange, Passage.of_lane(exchange, target, exchange.target[len(INVOKE) :]))
        call.sender = (exchange.header(SENDER) or b"").decode("ascii", "replace")
        exchange.context = call
        try:
            self._submit(call)
        except MartletError as error:
            if not self._node.pass_on(call, error):
                self._node.refuse(call, error)
