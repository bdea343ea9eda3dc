"""What a request may do, kept on its connection for the next request that is the same but for its body."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from time import time

from martlet.gateway.admission import Toll
from martlet.http.exchange import Exchange, Header
from martlet.node.passage import Passage


@dataclass(frozen=True, slots=True)
class Entry:
    """See the module.

    Attributes:
        epoch: the state of functions and keys it follows from; any change begins another.
        headers: those of the request it follows from, which one that repeats it shares.
        expires: when the key ends, seconds since the epoch of the clock; infinite where it does not.
        tolls: what is taken for each request.
        passage: where it goes, and as what.
    """

    epoch: object
    headers: list[Header]
    expires: float
    tolls: tuple[Toll, ...]
    passage: Passage

    def holds(self, exchange: Exchange, epoch: object) -> bool:
        """Whether it is still true, and about this request."""
        return (
            self.headers is exchange.headers
            and self.epoch is epoch
            and (self.expires == inf or time() < self.expires)
        )
