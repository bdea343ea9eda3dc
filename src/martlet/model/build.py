"""Builds: from what was uploaded to a revision that serves."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from martlet.model.base import Frozen
from martlet.model.git import GitSource
from martlet.model.names import FunctionName


class BuildState(StrEnum):
    """The steps of a deploy, in order; ``failed`` and ``cancelled`` may follow any but ``ready``."""

    QUEUED = "queued"
    PACKING = "packing"
    BUILDING = "building"
    PACKED = "packed"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BuildPhase(StrEnum):
    """The same as other platforms name it, with where a deploy ended that failed or was cancelled."""

    CREATED = "created"
    PACKING = "packing"
    PACKING_FAILED = "packing_failed"
    PACKED = "packed"
    INITIALIZING = "initializing"
    INITIALIZING_FAILED = "initializing_failed"
    READY = "ready"

    def after(self, state: BuildState) -> BuildPhase:
        """Returns the phase of a build that comes from this one into a state."""
        if state in (BuildState.FAILED, BuildState.CANCELLED):
            late = self in (BuildPhase.PACKED, BuildPhase.INITIALIZING)
            return BuildPhase.INITIALIZING_FAILED if late else BuildPhase.PACKING_FAILED
        return _PHASES[state]


_PHASES = {
    BuildState.QUEUED: BuildPhase.CREATED,
    BuildState.PACKING: BuildPhase.PACKING,
    BuildState.BUILDING: BuildPhase.PACKING,
    BuildState.PACKED: BuildPhase.PACKED,
    BuildState.LOADING: BuildPhase.INITIALIZING,
    BuildState.READY: BuildPhase.READY,
}


class Build(Frozen):
    """One deploy: from what was uploaded to a revision that serves (or a log that says why not).

    ``commit`` is what it was made of where it came from git, ``node`` the machine that builds it, once one does, and
    ``attempt`` how many times one has begun with it: again where it had died or stopped, or left it to one that can.
    ``code`` and ``field`` say what kind of error it failed with, as a problem document has them; ``unchanged`` that its
    revision served before.
    """

    id: str
    function: FunctionName
    state: BuildState
    phase: BuildPhase = BuildPhase.CREATED
    revision: int | None = None
    error: str | None = None
    started: float
    finished: float | None = None
    commit: str | None = None
    node: str | None = None
    attempt: int = 0
    code: str | None = None
    field: str | None = None
    unchanged: bool = False


class Waiting(Frozen):
    """A deploy that has been accepted and has not ended, as it is kept.

    ``build`` is the id of its build, ``node`` that of the machine that builds it: empty while none does. ``runtime`` is
    what a machine must be able to build for it, where that is known. One that is ``cancelled`` only has to be ended.
    ``attempts`` have begun, and ``stops`` of them were ended by a machine that was told to stop.
    """

    build: str
    node: str = ""
    function: FunctionName
    kind: Literal["nothing", "inline", "archive", "git"]
    file: str = ""
    git: GitSource | None = None
    config: dict[str, Any]
    expect: str
    replace: bool
    upgrade: bool
    attempts: int
    stops: int = 0
    started: float
    runtime: str = ""
    cancelled: bool = False
