"""Why a function has as many instances as it has."""

from __future__ import annotations

from enum import StrEnum

from martlet.model.base import Frozen


class ScalingAction(StrEnum):
    """What was decided about the instances of a function; ``stay`` is not to start one that was asked for."""

    START = "start"
    STAY = "stay"
    END = "end"
    FAIL = "fail"


class ScalingDecision(Frozen):
    """A decision about the instances of a revision on one node, as ``/functions/{name}/scaling`` shows it.

    ``times`` is how often in a row it was decided; ``time`` is of the last time, and ``instances`` of all together.
    """

    time: float
    node: str
    revision: int
    action: ScalingAction
    instances: int
    times: int
    reason: str


class KeepAliveView(Frozen):
    """When an idle function has instances: until ``linger``, and from ``begin`` to ``end``, in seconds after its last
    call. ``basis`` says what this was derived from."""

    basis: str
    linger: float
    begin: float
    end: float


class NodeScaling(Frozen):
    """Why a node has as many instances of a function as it has.

    ``keep_alive`` is in force, ``learned`` what the function's own history says, from ``idle_times`` of them.
    """

    node: str
    instances: int
    busy: int
    starting: int
    waiting: int
    last_used: float | None
    why: str
    keep_alive: KeepAliveView
    learned: KeepAliveView
    idle_times: int
    decisions: list[ScalingDecision]
