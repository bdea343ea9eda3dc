"""One invocation on its way through a node."""

from __future__ import annotations

from time import monotonic

from martlet.errors import MartletError
from martlet.http.exchange import Exchange, Header
from martlet.http.refusal import refuse
from martlet.node.passage import Passage

SENDER = b"x-martlet-node"
"""The header that says a call's `sender`."""
CLIENT_CLOSED = 499
"""The status recorded (never sent) for a request whose client left."""


class Call:
    """An exchange that is an invocation of a target.

    Attributes:
        passage: what follows from the head of the request.
        target: the revision it is for.
        arrived: `monotonic` when the node got it.
        sent: `monotonic` when an instance got it; 0.0 before.
        start: seconds of its wait that were the start of an instance.
        load: seconds of ``start`` that the user's code took to load.
        last: the header line that is another for every request; see `Upstream.send`.
        cold: it had to wait for an instance to start.
        refused_by: the machines that had no room for it, or could not be reached.
        sender: the id of the machine that has sent it here and could run it itself; empty: there is none.
        deferred: it has had to wait for a machine that was away.
    """

    __slots__ = (
        "arrived",
        "cold",
        "deferred",
        "exchange",
        "last",
        "load",
        "passage",
        "refused_by",
        "sender",
        "sent",
        "start",
        "target",
    )

    def __init__(self, exchange: Exchange, passage: Passage) -> None:
        self.exchange = exchange
        self.passage = passage
        self.target = passage.target
        self.last = b"x-request-id: %b\r\n" % exchange.request_id.encode()
        self.arrived = exchange.began
        self.sent = 0.0
        self.start = 0.0
        self.load = 0.0
        self.cold = False
        self.refused_by: tuple[str, ...] = ()
        self.sender = ""
        self.deferred = False

    def waited(self) -> float:
        """Returns the seconds it waited for a slot, less what was the start of an instance."""
        return (self.sent or monotonic()) - self.arrived - self.start

    def timing(self, run: float) -> bytes:
        """Returns the header line that says where the time went; ``run`` is in seconds."""
        if not self.cold:
            queue = self.sent - self.arrived
            return b"server-timing: queue;dur=%.3f, run;dur=%.3f\r\n" % (queue * 1e3, run * 1e3)
        return b"server-timing: queue;dur=%.3f, cell;dur=%.3f, load;dur=%.3f, run;dur=%.3f\r\n" % (
            self.waited() * 1e3,
            (self.start - self.load) * 1e3,
            self.load * 1e3,
            run * 1e3,
        )

    def fail(self, error: MartletError) -> None:
        """Answers an error, with the stamp of the revision."""
        if not self.exchange.gone:
            self.exchange.problem(error, self.stamp)

    @property
    def stamp(self) -> tuple[Header, ...]:
        """The header that names the revision."""
        return ((b"x-faas-revision", b"%d" % self.target.revision.number),)


class Arrival(Call):
    """A call that another lane has passed on, and may pass on to yet another."""

    __slots__ = ()

    def refuse(self, error: MartletError) -> None:
        """Says that nothing of it was begun, for lack of room; ``error`` is one of `NO_ROOM`."""
        if not self.exchange.gone:
            refuse(self.exchange, error, self.stamp)
