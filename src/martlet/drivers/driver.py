"""The protocol of a driver: how a sandbox is made, given code, asked after and ended.

A driver makes **cells**: sandboxes that run a runtime and no user code yet. Specialising one makes it an instance of a
revision, for good. All that a node knows of either is its `Handle`. Implementations: `process`, `fake`.

A driver may be able to do more: see `Connecting`, `Forking`, `Preparing`, `Weighing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from martlet.http.conversation import Conversation
from martlet.model import Network, Revision


class DriverError(Exception):
    """The driver could not do it; the message is for the operator."""


class NotStarted(DriverError):
    """A cell that was handed out before it had answered has not come to be; the message is for the operator."""


class LoadFailed(DriverError):
    """The user's code did not load. ``kind`` and the message are the exception's; ``traceback`` is for the logs."""

    def __init__(self, kind: str, message: str, traceback: str = "") -> None:
        super().__init__(f"{kind}: {message}" if kind else message)
        self.kind, self.traceback = kind, traceback


class Unforkable(DriverError):
    """The code must not be forked, or not on this host; the message says why."""


class State(StrEnum):
    """Whether a guarantee holds on this host."""

    HELD = "held"
    WEAKER = "weaker"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """Something that a driver promises about its sandboxes, and what has become of it on this host.

    Attributes:
        name: what people call it.
        promise: what it means for functions.
        state: whether it holds.
        why: how it is held, or why it is not.
        remedy: what a person can do about it where it is not held.
        needed: whether ``strict`` refuses to run where it is not held in full.
    """

    name: str
    promise: str
    state: State
    why: str
    remedy: str = ""
    needed: bool = True

    @property
    def broken(self) -> bool:
        """Whether ``strict`` refuses to run for this."""
        return self.needed and self.state is not State.HELD


@dataclass(frozen=True, slots=True)
class CellSpec:
    """What to start: ``directory`` exists, is the cell's own, and gets its socket (``sock``) and log (``log``).

    ``image`` is the one that the cell's function is (``config.image``); None: its runtime has a root. One that is
    ``urgent`` gets code as soon as it is handed out: what it answers to that may take the place of its health.
    """

    id: str
    runtime: str
    network: Network
    directory: Path
    image: str | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Handle:
    """A sandbox as its driver can find it again, even after the node was restarted. Plain data.

    ``pid`` is its first process; None where there is none, or it is not known yet (`Driver.identify`).
    ``socket`` speaks the instance contract (HTTP/1.1); ``log`` is a FIFO with what the sandbox prints; ``state``
    belongs to the driver.
    """

    id: str
    driver: str
    runtime: str
    socket: str
    log: str
    pid: int | None = None
    state: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the handle as a JSON-ready dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Handle:
        """Reads what `to_json` wrote."""
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a cell: ``mode`` says how the handler is run, ``load_ms`` how long the user's code took."""

    mode: str
    load_ms: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What an instance uses now. ``oom_kills`` counts processes that the kernel ended for memory."""

    memory_bytes: int
    cpu_ms: float
    processes: int
    oom_kills: int


def require(guarantees: Iterable[Guarantee]) -> None:
    """Returns where all that is needed is held.

    Raises:
        DriverError: something is not; the message says what, why, and what to do about it.
    """
    broken = [each for each in guarantees if each.broken]
    if broken:
        raise DriverError(
            "this machine does not let functions run isolated, and process_isolation_level is strict. "
            + " ".join(explain(broken))
        )


def explain(guarantees: Iterable[Guarantee]) -> list[str]:
    """Returns sentences about those that are not held: what, why, what to do. Those with one cause share theirs."""
    causes: dict[tuple[str, ...], list[str]] = {}
    for each in guarantees:
        if each.state is not State.HELD:
            causes.setdefault((each.state, each.why, each.remedy), []).append(each.name)
    return [
        f"{', '.join(names)}: {state}, because {why}. What to do: {remedy}."
        for (state, why, remedy), names in causes.items()
    ]


OnExit = Callable[[str, int], None]
"""Called with the id of a sandbox that ended by itself, and its exit code (negative: the signal that ended it)."""


class Driver(Protocol):
    """See the module. Every method raises `DriverError` when the host will not do it."""

    name: str

    def probe(self) -> list[Guarantee]:
        """Returns all that this driver promises, each with what holds here and what a person can do about it."""

    async def open(self, on_exit: OnExit) -> None:
        """Makes the driver ready to start cells (its zygotes, its parent cgroup), and to `recover` older ones."""

    async def close(self) -> None:
        """Destroys every cell and instance and lets go of all that `open` made."""

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a cell; returns once it answers ``GET /_martlet/health``, or earlier where it is urgent: then even
        its ``pid`` may not be known yet (`identify`).

        Raises:
            LoadFailed: it is to be an image that cannot be run; the message says why.
        """

    async def specialise(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Makes the cell an instance of ``revision``: limits, code, privileges, then the user's code is loaded.

        Raises `NotStarted` where it was urgent and there is none.

        Args:
            handle: a cell that has no code yet.
            revision: what it becomes.
            code: the unpacked package, a directory.
            dependencies: the unpacked dependencies, a directory, or None.
            deadline: seconds the user's code may take to load.

        Raises:
            LoadFailed: the user's code did not load; the sandbox is useless and must be destroyed.
        """

    async def identify(self, handle: Handle) -> Handle:
        """Returns the handle of a living sandbox with its ``pid``, where it has one, once that is known."""

    async def recover(self, handle: Handle) -> bool:
        """Whether the sandbox of a handle from an earlier life of the node still lives and is this driver's now.

        Where it answers False, `destroy` must still be called: parts of it may be left.
        """

    async def sweep(self) -> None:
        """Ends every sandbox of an earlier life that was not recovered; called once, before the first `start`."""

    async def stop(self, handle: Handle, grace: float) -> None:
        """Asks the sandbox to end, waits ``grace`` seconds, then destroys it."""

    async def destroy(self, handle: Handle) -> None:
        """Ends the sandbox now and removes all of it; harmless when there is nothing left."""

    async def stats(self, handle: Handle) -> Stats | None:
        """Returns what it uses, or None when it is gone."""


@runtime_checkable
class Weighing(Protocol):
    """What a driver may be able to do besides: let an instance give way to others that want the same core."""

    def cpu_ms(self, handle: Handle) -> float | None:
        """Returns the CPU that the instance has used, or None where that is not known (any more)."""

    def give_way(self, handle: Handle, gives: bool) -> None:
        """Lets the instance have a small share of a core that others want too, or the usual one again.

        Harmless where there is no such instance any more.
        """


@runtime_checkable
class Connecting(Protocol):
    """What a driver may be able to do besides: leave the connection over which a cell got its code to its caller."""

    async def specialise_connected(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> tuple[Loaded, Conversation | None]:
        """Does what `Driver.specialise` does.

        Returns:
            What that returns, and the connection, where the instance serves it: until it is closed, that may be all
            that an instance serves which runs one request at a time.
        """


@runtime_checkable
class Preparing(Protocol):
    """What a driver may be able to do besides: make ahead what a cell has outside of its sandbox."""

    async def prepare(self, cell: str, directory: Path) -> None:
        """Makes it for the cell that `start` will be asked for by this id, of whatever runtime, with this directory.

        What is never asked for is removed by `close`, and by `sweep` of a next life.

        Raises:
            DriverError: the host refuses.
        """


@runtime_checkable
class Forking(Protocol):
    """What a driver may be able to do besides: fork instances from a **template**, a cell that has loaded the code.

    A template is specialised as such, never serves, and can be destroyed like a cell. Its forks are instances like
    others, with socket, log, limits and end of their own, but end with it at the latest, and cannot be recovered.
    """

    async def prepare_template(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Makes the cell a template of ``revision``. The arguments are those of `Driver.specialise`.

        Raises:
            Unforkable: the code is no good for it; the sandbox is useless and must be destroyed.
            LoadFailed: the user's code did not load; likewise.
        """

    async def fork(self, template: Handle, spec: CellSpec) -> Handle:
        """Forks an instance; returns once it answers ``GET /_martlet/health``. What ``spec`` says of runtime and
        network is the template's.
        """
