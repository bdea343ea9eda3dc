"""How much of the limits that hold for all gateways together this one gives out: by what each was asked for lately."""

from __future__ import annotations

from math import exp

from martlet.model import Role
from martlet.scheduling.quota import part_of
from martlet.storage.registry import RegistryView
from martlet.units import EventRate

LATELY = 5.0
"""Seconds over which demand is counted; what is longer ago weighs less and less."""
FORGOTTEN = 0.01
"""Requests per second below which a limit is taken not to be asked for."""


class Quotas:
    """See the module. Each lane has its own; its machine tells the others what all of its lanes were asked for.

    Args:
        view: where the other gateways say what they were asked for.
        own: the id of this node.
    """

    def __init__(self, view: RegistryView, own: str) -> None:
        self._view = view
        self._own = own
        self._parts: dict[int, float] = {}
        self._counts: dict[int, tuple[float, float]] = {}
        view.on_nodes.append(self._parts.clear)

    def part(self, bucket: int, rate: EventRate, now: float) -> float:
        """Counts a request against a limit, and returns the part of it that is this machine's, from 0 to 1.

        Args:
            bucket: the `fingerprint` of the limit.
            rate: the limit.
            now: `time.monotonic`.
        """
        count, since = self._counts.get(bucket, (0.0, now))
        self._counts[bucket] = count * exp((since - now) / LATELY) + 1, now
        part = self._parts.get(bucket)
        if part is None:
            name = str(bucket)
            gateways = {
                node.id: node.asked.get(name, 0.0)
                for node in self._view.nodes.values()
                if Role.GATEWAY in node.roles
            }
            own = gateways.setdefault(self._own, 0.0)
            part = self._parts[bucket] = part_of(own, gateways.values(), rate)
        return part

    def asked(self, now: float) -> dict[str, float]:
        """Returns how many requests per second were counted against each limit lately, by its number."""
        rates = {
            bucket: count * exp((since - now) / LATELY) / LATELY
            for bucket, (count, since) in self._counts.items()
        }
        for bucket, rate in rates.items():
            if rate < FORGOTTEN:
                del self._counts[bucket]
        return {str(bucket): round(rate, 2) for bucket, rate in rates.items() if rate >= FORGOTTEN}
