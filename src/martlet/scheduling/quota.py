"""What part of a rate limit each gateway gives out, when one limit holds for all of them together."""

from __future__ import annotations

from collections.abc import Collection

from martlet.units import EventRate


def part_of(own: float, demands: Collection[float], rate: EventRate) -> float:
    """Returns the part of a limit that is this gateway's, from 0 to 1.

    All compute it from the same demands, so that their parts are 1 together. What nobody asks for is dealt out evenly;
    where more is asked for than there is, each gets the part of it that it was asked for.

    The part is enough for one event of the period at least: else a small limit that is divided would let nothing
    through.

    Args:
        own: requests per second that this gateway was asked for.
        demands: those of every gateway, this one among them.
        rate: the limit.
    """
    allowed, total = rate.events / rate.seconds, sum(demands)
    spare = max(0.0, allowed - total)
    part = (own + spare / len(demands)) / max(allowed, total)
    return min(1.0, max(part, 1 / rate.events))
