"""What the log of a function says of starts that failed, in the platform's words."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, time

from martlet.errors import MartletError
from martlet.model import Revision
from martlet.node.call import Call
from martlet.node.lines import Line
from martlet.node.logs import LogStore, said_by_platform

QUIET = 1.0
"""Seconds after a line in which there is no other: under load a start that fails is tried again at once."""


class Remarks:
    """See the module.

    Args:
        revision: what is started.
        logs: where its log is.
    """

    def __init__(self, revision: Revision, logs: LogStore) -> None:
        self._revision = revision
        self._logs = logs
        self._quiet_until = 0.0
        self._unsaid = 0

    def start_failed(self, error: MartletError, calls: Sequence[Call] = ()) -> None:
        """Says why a start has failed, unless it just has; ``calls`` are those that were told the same."""
        now = monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} starts before it that are not told here)" if self._unsaid else ""
        self._quiet_until, self._unsaid = now + QUIET, 0
        request_id = calls[0].exchange.request_id if len(calls) == 1 else None
        line = Line(time(), request_id, "error", f"an instance did not start: {error.detail}{more}")
        self._logs.append(said_by_platform(self._revision, "", line))
