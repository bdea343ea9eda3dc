"""Notes down every finished call: in the counters, and in the history."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from martlet.model import Revision
from martlet.node.call import Call
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats

Record = Callable[[Call, int, float, str | None], None]
"""Called with a call, its status, the seconds it ran, and the code of its error."""


class Recorder:
    """What a lane remembers of its calls."""

    def __init__(self, stats: LaneStats, history: History) -> None:
        self.stats = stats
        self.history = history

    def of(self, revision: Revision) -> Record:
        """Returns what notes down the calls of a revision."""
        counters = self.stats.function(revision.function)
        function, number = revision.function, revision.number
        note = self.history.record

        def record(call: Call, status: int, run: float, code: str | None) -> None:
            exchange, queue, start, cold = call.exchange, call.waited(), call.start, call.cold
            counters.record(status, queue, start, run, cold, exchange.received, exchange.sent, code)
            began = time() - (queue + start + run)
            queue, start, run = queue * 1e3, start * 1e3, run * 1e3  # what is noted is in ms
            note((exchange.request_id, function, number, status, cold, began, queue, start, run, code))

        return record
