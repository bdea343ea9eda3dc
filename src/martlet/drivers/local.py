"""What drivers have in common whose cells are processes of this machine, below a parent that starts them.

    lane (the driver) ── parent, one a runtime ──┬── cell        socket, log, cgroup and user id of its own
                                                 └── instance

A parent outlives its lane for the length of a lease, and with it the instances, which the lane's next life takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from martlet.destination import Destination
from martlet.drivers import contract
from martlet.drivers.cell import Cell, empty, remove_remains
from martlet.drivers.driver import (
    CellSpec,
    DriverError,
    Guarantee,
    Handle,
    Loaded,
    LoadFailed,
    OnExit,
    Stats,
)
from martlet.drivers.egress import Egress
from martlet.drivers.identities import Identities
from martlet.drivers.parent import Parent
from martlet.drivers.remains import group_name, socket_name
from martlet.drivers.template import Template
from martlet.errors import Invalid
from martlet.http.fetch import FetchError
from martlet.model import FunctionConfig, Network, Revision
from martlet.runtimes import Catalogue, Runtime
from martlet.sandbox.cgroups import USUAL_WEIGHT, Group, Limits
from martlet.sandbox.launcher import Confinement
from martlet.units import format_bytes

START_SECONDS = 10.0
"""What the start of a cell may take."""
_LAST_WORDS_SECONDS = 1.0
# What an instance may have of processes (threads too) and of descriptors, for itself and for each request at once:
# room for an ordinary program with its thread pools, and none for a bomb.
_PROCESSES, _PROCESSES_PER_REQUEST = 128, 4
_OPEN_FILES, _OPEN_FILES_PER_REQUEST = 1024, 2
_WHOLE_CORE = 1000
# Of a core that is wanted by more. Together the instances of a lane have less than the lane, which serves all of them.
_WEIGHT_OF_ALL = USUAL_WEIGHT // 2
_WEIGHT_OF_WHO_GIVES_WAY = USUAL_WEIGHT // 10
LEASE = 30.0
"""Seconds that a parent waits for the next life of its lane, which on a busy machine takes several to start."""


ParentT = TypeVar("ParentT", bound=Parent)


class LocalDriver(ABC, Generic[ParentT]):
    """See the module. It belongs to one event loop.

    Args:
        lane: number of the lane, from 0.
        packages: the folder with all unpacked packages; code and dependencies lie in it.
        run: the platform's run directory, its alone on this machine; names the cgroup.
        identities: the user ids of its cells.
        isolation: whether to refuse or to accept a host on which a guarantee is not held.
        egress: gives cells a way out; None: there are none that have one.
        allow_host_network: whether there may be cells in the network of the host.
        max_body: bytes of the largest request body, for the runtime.
        runtimes: those it may start; all of this machine by default.
        lease: seconds that parents wait for the next life of the lane.
    """

    name: str
    _parents_of: type[ParentT]
    """What its cells are started by."""
    _further_parents: tuple[str, ...] = ()
    """The names of those that are not called as a runtime is."""

    def __init__(
        self,
        lane: int,
        packages: Path,
        run: Path,
        *,
        identities: Identities,
        isolation: Literal["strict", "relaxed"],
        egress: Egress | None,
        allow_host_network: bool,
        max_body: int,
        runtimes: Catalogue | None,
        lease: float,
    ) -> None:
        self._lane = lane
        self._packages = packages.absolute()
        self._run = run.absolute() / f"lane-{lane}"
        self._group_name = group_name(run, f"{lane}-{self.name}")
        self._isolation = isolation
        self._egress = egress
        self._allow_host_network = allow_host_network
        self._max_body = max_body
        self._runtimes = runtimes or Catalogue.load()
        self._identities = identities
        self._lease = lease
        self._confined = True
        self._group: Group | None = None
        self._parents: dict[str, asyncio.Future[ParentT]] = {}
        self._cells: dict[str, Cell] = {}
        self._on_exit: OnExit = lambda *_: None

    @abstractmethod
    def probe(self) -> list[Guarantee]:
        """Returns all that it promises, and what of it holds here."""

    @abstractmethod
    async def _begin(self) -> Group | None:
        """Finds out what this host has. Returns the cgroup that the lane's is made in, or None where there is none.

        Raises:
            DriverError: that is not enough.
        """

    @abstractmethod
    async def _start_parent(self, runtime: Runtime, at: Path) -> ParentT:
        """Starts what starts cells of a runtime; it listens ``at`` a path. Raises `DriverError`."""

    @abstractmethod
    async def _start_cell(self, parent: ParentT, cell: Cell, network: Network) -> int:
        """Starts the process of a cell, in its cgroup, and returns its id. Raises `DriverError` or OSError."""

    async def _greet(self, cell: Cell) -> None:
        """Returns once the cell answers for its health. Raises `DriverError` or `FetchError`."""
        await contract.check_health(cell.handle.socket, START_SECONDS)

    @abstractmethod
    async def _equip(
        self, cell: Cell, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        """Gives a cell, whose limits are set, what is outside of it to give.

        Returns:
            The document that makes it an instance, or a template.
        """

    async def open(self, on_exit: OnExit) -> None:
        """Takes over the parents of an earlier life of the lane. Others start when they are needed."""
        self._on_exit = on_exit
        group = await self._begin()
        if group is not None:
            self._group = group.below(self._group_name)
            try:
                self._group.create()
                self._group.weigh(_WEIGHT_OF_ALL)
            except OSError as error:
                raise DriverError(f"the cgroup {self._group} cannot be made: {error}") from error
        if self._egress is not None:
            await self._egress.open()
        for name in (*(runtime.name for runtime in self._runtimes.available()), *self._further_parents):
            parent = await self._parents_of.find(self._socket_of(name), self._ended)
            if parent is not None:
                self._parents[name] = asyncio.get_running_loop().create_future()
                self._parents[name].set_result(parent)

    async def close(self) -> None:
        """Destroys every cell and instance, then the parents and the lane's cgroup."""
        await asyncio.gather(*(self._remove(cell) for cell in list(self._cells.values())))
        for parent in await asyncio.gather(*self._parents.values(), return_exceptions=True):
            if isinstance(parent, Parent):
                await parent.close()
        for name in self._parents:
            self._socket_of(name).unlink(missing_ok=True)
        self._parents.clear()
        if self._group is not None:
            await empty(self._group)
        if self._egress is not None:
            await self._egress.close()

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a cell; returns once it answers for its health."""
        group, identity = self._group_of(spec.id), self._identities.take()
        cell = Cell(self.name, spec.id, spec.runtime, spec.directory, group, identity, spec.image)

        async def begin() -> int:
            cell.namespace = await self._namespace(spec.network)
            cell.parent = parent = await self._parent_of(cell)
            return await self._start_cell(parent, cell, spec.network)

        return await self._start(cell, begin)

    async def _start(self, cell: Cell, begin: Callable[[], Awaitable[int]]) -> Handle:
        self._cells[cell.id] = cell
        try:
            cell.pid = await begin()
            await self._greet(cell)
            if cell.ended.done():
                raise DriverError("it ended")
        except LoadFailed:
            await self._remove(cell)
            raise
        except (OSError, FetchError, DriverError) as error:
            await asyncio.wait([cell.ended], timeout=_LAST_WORDS_SECONDS if cell.pid else 0)
            await self._remove(cell)
            raise DriverError(f"no cell could be started: {cell.failure or error}") from error
        except BaseException:
            await self._remove(cell)
            raise
        cell.in_service = True
        return cell.handle

    async def specialise(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Sets the limits of the revision, confines the cell and loads the code."""
        return await self._specialise(self._living(handle), revision, code, dependencies, deadline)

    async def _specialise(
        self,
        cell: Cell,
        revision: Revision,
        code: Path,
        dependencies: Path | None,
        deadline: float,
        *,
        template: bool = False,
    ) -> Loaded:
        config = revision.config
        if config.egress_to:
            await self._narrow(cell, config.egress_to)
        cell.let_go_of_namespace()
        cell.limit(self._limits_of(config))
        confinement = Confinement(
            code=self._inside(code),
            dependencies=None if dependencies is None else self._inside(dependencies),
            hostname=revision.function,
            # Half of the memory that it counts against: a full /tmp is an error to handle, not the end.
            scratch=config.memory // 2,
            open_files=open_files_of(config),
            # Forks have one user, and each a cgroup.
            processes=None if template else limits_of(config).processes,
            every_cpu=(config.cpu_limit or 0) > _WHOLE_CORE,
        )
        document = await self._equip(cell, revision, confinement, template=template)
        try:
            return await contract.specialise(cell.handle.socket, document, deadline)
        except LoadFailed as error:
            if error.kind == "Crashed" and (failure := _out_of_memory(cell, revision)):
                raise failure from None
            raise
        except FetchError as error:
            failure = await self._why_no_answer(cell, revision, deadline, error)
            raise failure from None

    async def recover(self, handle: Handle) -> bool:
        """Whether a parent that was taken over has the sandbox; its cgroup and user id are in use then."""
        cell = self._cells.get(handle.id)
        if cell is None:
            cell = self._claim(handle)
        return cell is not None and not cell.ended.done()

    async def sweep(self) -> None:
        """Ends the cells that nobody has recovered, and what is left of others in the lane's cgroup."""
        for parent in await asyncio.gather(*self._parents.values()):
            for cell in parent.cells.keys() - self._cells.keys():
                await parent.signal(cell, signal.SIGKILL)
        if self._group is not None:
            for name in self._group.names() - self._cells.keys():
                await empty(self._group.below(name))

    async def stop(self, handle: Handle, grace: float) -> None:
        """Sends SIGTERM, waits ``grace`` seconds, then destroys."""
        cell = self._cells.get(handle.id)
        if cell is not None and cell.parent is not None:
            cell.in_service = False
            await cell.parent.signal(cell.id, signal.SIGTERM)
            await asyncio.wait([cell.ended], timeout=grace)
        await self.destroy(handle)

    async def destroy(self, handle: Handle) -> None:
        """Kills the sandbox and removes its cgroup, socket, log and directory."""
        cell = self._cells.get(handle.id)
        if cell is not None:
            await self._remove(cell)
        else:
            await remove_remains(Path(handle.socket).parent, self._group_of(handle.id))

    async def stats(self, handle: Handle) -> Stats | None:
        """Returns what the cgroup counted, until the sandbox is destroyed; None on a host without cgroups."""
        cell = self._cells.get(handle.id)
        usage = None if cell is None else cell.usage()
        return None if usage is None else Stats(**asdict(usage))

    def cpu_ms(self, handle: Handle) -> float | None:
        """Returns what the cgroup counted; None on a host without cgroups."""
        cell = self._cells.get(handle.id)
        return None if cell is None or cell.group is None else cell.group.cpu_ms()

    def give_way(self, handle: Handle, gives: bool) -> None:
        """Changes the weight of the cgroup."""
        cell = self._cells.get(handle.id)
        if cell is not None and cell.group is not None:
            with contextlib.suppress(OSError):  # it is gone
                cell.group.weigh(_WEIGHT_OF_WHO_GIVES_WAY if gives else USUAL_WEIGHT)

    def _living(self, handle: Handle) -> Cell:
        cell = self._cells.get(handle.id)
        if cell is None or cell.ended.done():
            raise DriverError(f"the cell {handle.id} is gone")
        return cell

    async def _namespace(self, network: Network) -> int | None:
        """Returns what a cell of this network joins; None where it makes its own, or shares the host's."""
        if network is Network.HOST and not self._allow_host_network:
            raise DriverError("system.allow_host_network is off")
        if network is not Network.EGRESS or not self._confined:
            return None
        if self._egress is None:
            raise DriverError("this lane gives no cell a way out")
        return await self._make_way_out(self._egress)

    async def _make_way_out(self, egress: Egress) -> int:
        return await egress.make()

    async def _narrow(self, cell: Cell, destinations: Sequence[Destination]) -> None:
        if self._egress is None or cell.namespace is None:
            raise DriverError(f"the cell {cell.id} has no network that could be narrowed (egress_to)")
        await self._egress.narrow(cell.namespace, destinations)

    async def _parent_of(self, cell: Cell) -> ParentT:
        """Returns the living parent for a cell that is to start."""
        runtime = self._runtime_of(cell)
        return await self._parent(runtime.name, lambda at: self._start_parent(runtime, at))

    def _runtime_of(self, cell: Cell) -> Runtime:
        try:
            return self._runtimes.resolve(cell.runtime)
        except Invalid as error:
            raise DriverError(error.detail) from None

    async def _parent(self, name: str, start: Callable[[Path], Coroutine[Any, Any, ParentT]]) -> ParentT:
        """Returns the living parent of this name, started where there is none."""
        starting = self._parents.get(name)
        if starting is None or (starting.done() and not _lives(starting)):
            starting = self._parents[name] = asyncio.create_task(start(self._socket_of(name)))
        return await asyncio.shield(starting)

    def _name_of_parent(self, handle: Handle) -> str:
        """Returns the name of the parent that has started a cell. Raises `Invalid` where there is none any more."""
        return self._runtimes.resolve(handle.runtime).name

    def _claim(self, handle: Handle) -> Cell | None:
        """Returns the cell of a handle from an earlier life, if it lives."""
        try:
            starting = self._parents.get(self._name_of_parent(handle))
        except Invalid:
            return None
        if starting is None or not starting.done() or not _lives(starting):
            return None
        parent, group = starting.result(), self._group_of(handle.id)
        identity = handle.state.get("identity")
        if handle.pid is None or parent.cells.get(handle.id) != handle.pid or not isinstance(identity, int):
            return None
        self._identities.hold(identity)
        directory, image = Path(handle.socket).parent, handle.state.get("image")
        cell = Cell(self.name, handle.id, handle.runtime, directory, group, identity, image)
        cell.parent, cell.pid, cell.in_service = parent, handle.pid, True
        self._cells[handle.id] = cell
        self.give_way(handle, gives=False)  # an earlier life may have been ended while it did
        return cell

    def _socket_of(self, name: str) -> Path:
        return self._run / socket_name(name, self._parents_of)

    def _group_of(self, cell: str) -> Group | None:
        return None if self._group is None else self._group.below(cell)

    def _limits_of(self, config: FunctionConfig) -> Limits:
        """Returns what the cgroup of a cell is limited to: what a function may have, and what its sandbox takes."""
        return limits_of(config)

    def _ended(self, id: str, code: int, failure: str | None) -> None:  # noqa: A002
        cell = self._cells.get(id)
        if cell is None or cell.ended.done():
            return
        cell.failure = failure
        cell.ended.set_result(code)
        if cell.in_service:
            self._on_exit(id, code)

    async def _remove(self, cell: Cell) -> None:
        cell.in_service = False
        if cell.removal is None or cell.removal.done():
            cell.removal = asyncio.create_task(self._forget(cell))
        await asyncio.shield(cell.removal)

    async def _forget(self, cell: Cell) -> None:
        await cell.remove()
        self._cells.pop(cell.id, None)
        if cell.template is not None:
            cell.template.close()
        if not isinstance(cell.parent, Template):
            self._identities.give_back(cell.identity)

    async def _why_no_answer(
        self, cell: Cell, revision: Revision, deadline: float, error: FetchError
    ) -> LoadFailed:
        """Returns why a cell did not answer when it was given code; it is dead afterwards."""
        if isinstance(error.__cause__, TimeoutError):
            await self._remove(cell)
            return LoadFailed("Timeout", f"the code did not load within {deadline:g} s")
        await asyncio.wait([cell.ended], timeout=_LAST_WORDS_SECONDS)
        if failure := _out_of_memory(cell, revision):
            return failure
        if not cell.ended.done():
            return LoadFailed("BadAnswer", f"the code answered in place of the runtime: {error}")
        return LoadFailed("Crashed", f"the process {_how(cell.ended.result())} while it loaded the code")

    def _inside(self, package: Path) -> str:
        """Returns the name of a package as the sandbox knows it."""
        if not self._confined:
            return str(package.absolute())
        try:
            return str(package.absolute().relative_to(self._packages))
        except ValueError:
            raise DriverError(f"{package} is not in the folder of packages, {self._packages}") from None


def limits_of(config: FunctionConfig) -> Limits:
    """Returns what the cgroup of an instance is limited to."""
    processes = _PROCESSES + _PROCESSES_PER_REQUEST * config.concurrency
    return Limits(config.memory, config.cpu_limit, processes)


def open_files_of(config: FunctionConfig) -> int:
    """Returns how many descriptors a process of an instance may have."""
    return _OPEN_FILES + _OPEN_FILES_PER_REQUEST * config.concurrency


USUAL_LIMITS = limits_of(FunctionConfig())
"""Set ahead, because most functions keep them."""


def _out_of_memory(cell: Cell, revision: Revision) -> LoadFailed | None:
    """Returns what to say of a cell whose processes the kernel has ended for memory; None where it has not."""
    usage = cell.usage()
    if usage is None or not usage.oom_kills:
        return None
    memory = format_bytes(revision.config.memory)
    return LoadFailed("OutOfMemory", f"loading the code took more than its memory limit of {memory}")


def _lives(starting: asyncio.Future[ParentT]) -> bool:
    return not starting.cancelled() and starting.exception() is None and starting.result().alive


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
