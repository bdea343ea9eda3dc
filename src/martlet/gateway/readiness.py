"""What ``/ready`` says of this machine before control is asked: a load balancer sends it requests or not."""

from __future__ import annotations

from martlet.errors import Unavailable
from martlet.http.exchange import Exchange
from martlet.model import Role
from martlet.node.withdrawal import Withdrawal
from martlet.storage.registry import RegistryView

READY = b"/ready"
STOPPING = "this machine is being stopped: send requests to another"


class Readiness:
    """See the module.

    Args:
        view: where the machines are known.
        own: the id of this one.
        withdrawal: whether it stops.
        manages: it has control, which knows best whether it is ready.
    """

    def __init__(self, view: RegistryView, own: str, withdrawal: Withdrawal, manages: bool) -> None:
        self._view = view
        self._own = own
        self._withdrawal = withdrawal
        self._manages = manages

    def answer(self, exchange: Exchange) -> bool:
        """Answers, unless control is to do it. Raises `Unavailable`."""
        if self._withdrawal.stopping:
            raise Unavailable(STOPPING)
        if self._manages or exchange.method not in (b"GET", b"HEAD"):
            return False
        own = self._view.nodes.get(self._own)
        if own is None:
            raise Unavailable("this machine has not joined the others yet")
        if not any(Role.NODE in node.roles for node in self._view.nodes.values()):
            raise Unavailable("no machine runs functions; see `martlet nodes`")
        lanes = sum(lane.state == "ready" for lane in own.lanes)
        functions = len(self._view.functions)
        exchange.answer_json(
            200, {"status": "ready", "lanes": lanes, "of": len(own.lanes), "functions": functions}
        )
        return True
