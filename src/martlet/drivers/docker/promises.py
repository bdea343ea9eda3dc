"""What this rung promises, and what there is to say where an engine does not keep it."""

from __future__ import annotations

from collections.abc import Mapping

from martlet.drivers.driver import DriverError, Guarantee, State
from martlet.drivers.guarantees import LIMITS, LIMITS_PROMISE, PROMISES
from martlet.sandbox.rehearsal import LANDLOCK

_PROMISES = {name: promise for name, promise in PROMISES.items() if name != LANDLOCK} | {
    LIMITS: LIMITS_PROMISE
}


def promised(lacking: Mapping[str, str], engine: str) -> list[Guarantee]:
    """Returns every guarantee; ``lacking`` are those that a container did not have, each with the reason."""
    remedy = f"look at the configuration of {engine} and of its OCI runtime, which did not do what it was asked for"
    return [
        Guarantee(name, promise, State.MISSING, lacking[name], remedy)
        if name in lacking
        else Guarantee(name, promise, State.HELD, f"by {engine}")
        for name, promise in _PROMISES.items()
    ]


def nothing_promised(error: DriverError, engine: str) -> list[Guarantee]:
    """Returns what holds where not even one container could be started: nothing."""
    why, _, remedy = str(error).partition(". What to do: ")
    remedy = remedy or f"see what {engine} itself says"
    return [Guarantee(name, promise, State.MISSING, why, remedy) for name, promise in _PROMISES.items()]
