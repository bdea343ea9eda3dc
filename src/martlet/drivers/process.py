"""The driver of the `process` rung: a zygote forks cells into sandboxes of Linux namespaces.

    lane (this driver) ── zygote, one a runtime ──┬── cell        socket, log, cgroup and user id of its own
                                                  ├── instance
                                                  └── template ── instance, in the sandbox of its template

What confines a cell is in `martlet.sandbox`; here is what the lane does about it. A zygote outlives its lane for the
length of a lease, and with it the instances, which the lane's next life takes over.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

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
    Unforkable,
    require,
)
from martlet.drivers.egress import Egress
from martlet.drivers.host import inspect
from martlet.drivers.identities import Identities
from martlet.drivers.remains import ZYGOTE, group_name
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.startup import Startup
from martlet.drivers.template import Template
from martlet.drivers.zygote import OnObserved, Zygote
from martlet.errors import Invalid
from martlet.http.fetch import FetchError
from martlet.model import FunctionConfig, MiB, Network, Revision
from martlet.runtimes import INTERPRETER, Catalogue, Runtime
from martlet.sandbox import root
from martlet.sandbox.cgroups import Group, Limits
from martlet.sandbox.launcher import UNCONFINED_CODE, UNCONFINED_DEPENDENCIES, Confinement
from martlet.sandbox.means import Means, Users
from martlet.sandbox.zygote import CONFINEMENT, Plan
from martlet.units import format_bytes

_START_SECONDS = 10.0
_LAST_WORDS_SECONDS = 1.0
# What an instance may have of processes (threads too) and of descriptors, for itself and for each request at once:
# room for an ordinary program with its thread pools, and none for a bomb.
_PROCESSES, _PROCESSES_PER_REQUEST = 128, 4
_OPEN_FILES, _OPEN_FILES_PER_REQUEST = 1024, 2
_WHOLE_CORE = 1000
LEASE = 30.0
"""Seconds that a zygote waits for the next life of its lane, which on a busy machine takes several to start."""


class ProcessDriver:
    """See the module. It belongs to one event loop."""

    name = "process"

    def __init__(
        self,
        lane: int,
        packages: Path,
        run: Path,
        *,
        isolation: Literal["strict", "relaxed"] = "strict",
        egress: Egress | None = None,
        allow_host_network: bool = False,
        max_body: int = 20 * MiB,
        runtimes: Catalogue | None = None,
        on_observed: OnObserved | None = None,
        lease: float = LEASE,
    ) -> None:
        """Makes a driver; `open` makes it work.

        Args:
            lane: number of the lane, from 0; decides the user ids.
            packages: the folder with all unpacked packages; code and dependencies lie in it.
            run: the platform's run directory, its alone on this machine; names the cgroup.
            isolation: whether to refuse or to accept a host on which a guarantee is not held.
            egress: gives cells a way out; None: there are none that have one.
            allow_host_network: whether there may be cells in the network of the host.
            max_body: bytes of the largest request body, for the runtime.
            runtimes: those it may start; all of this machine by default.
            on_observed: makes the calls that instances are denied wait until the one it is told of answers them.
            lease: seconds that zygotes wait for the next life of the lane.
        """
        self._lane = lane
        self._packages = packages.absolute()
        self._run = run.absolute() / f"lane-{lane}"
        self._root = self._run / "root"
        self._group_name = group_name(run, lane)
        self._isolation = isolation
        self._egress = egress
        self._allow_host_network = allow_host_network
        self._max_body = max_body
        self._runtimes = runtimes or Catalogue.load()
        self._identities = Identities(lane)
        self._lease = lease
        self._means = Means(confined=True, users=Users.OWN)
        self._filtered = True
        self._on_observed = on_observed
        self._group: Group | None = None
        self._zygotes: dict[str, asyncio.Future[Zygote]] = {}
        self._cells: dict[str, Cell] = {}
        self._on_exit: OnExit = lambda *_: None

    def probe(self) -> list[Guarantee]:
        """Returns what the sandbox promises, and what of it holds: `strict` takes all, `relaxed` what there is."""
        return inspect(INTERPRETER, self._lane).guarantees

    async def open(self, on_exit: OnExit) -> None:
        """Takes over the zygotes of an earlier life of the lane. Others start when they are needed."""
        host = await asyncio.to_thread(inspect, INTERPRETER, self._lane)
        if self._isolation == "strict":
            require(host.guarantees)
        self._on_exit = on_exit
        self._means, self._filtered = host.means, host.filtered
        self._identities = Identities(self._lane, host.identities)
        if host.group is not None:
            self._group = host.group.below(self._group_name)
        if self._egress is not None:
            await self._egress.open()
        self._root.mkdir(parents=True, exist_ok=True)
        for runtime in self._runtimes.available():
            zygote = await Zygote.find(self._socket_of(runtime.name), self._ended)
            if zygote is not None:
                self._zygotes[runtime.name] = asyncio.get_running_loop().create_future()
                self._zygotes[runtime.name].set_result(zygote)

    async def close(self) -> None:
        """Destroys every cell and instance, then the zygotes and the lane's cgroup."""
        await asyncio.gather(*(self._remove(cell) for cell in list(self._cells.values())))
        for zygote in await asyncio.gather(*self._zygotes.values(), return_exceptions=True):
            if isinstance(zygote, Zygote):
                await zygote.close()
        for name in self._zygotes:
            self._socket_of(name).unlink(missing_ok=True)
        self._zygotes.clear()
        if self._group is not None:
            await empty(self._group)
        if self._egress is not None:
            await self._egress.close()
        shutil.rmtree(self._root, ignore_errors=True)

    async def start(self, spec: CellSpec) -> Handle:
        """Forks a cell; returns once it answers for its health."""
        cell = Cell(spec.id, spec.runtime, spec.directory, self._group_of(spec.id), self._identities.take())

        async def fork() -> int:
            cell.namespace = await self._namespace(spec.network)
            cell.parent = zygote = await self._zygote(spec.runtime)
            with cell.belongings() as descriptors:
                cell.limit(_USUAL_LIMITS)
                return await zygote.fork(spec.id, spec.network, cell.identity, descriptors)

        return await self._start(cell, fork)

    async def _start(self, cell: Cell, fork: Callable[[], Awaitable[int]]) -> Handle:
        self._cells[cell.id] = cell
        try:
            cell.pid = await fork()
            await contract.check_health(cell.handle.socket, _START_SECONDS)
            if cell.ended.done():
                raise DriverError("it ended")
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

    async def prepare_template(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Does what `specialise` does, and connects to what the cell has become."""
        if not self._forks:
            raise Unforkable(
                "this lane cannot move a fork into a cgroup, or has no sandbox for it that is unobserved"
            )
        cell = self._living(handle)
        loaded = await self._specialise(cell, revision, code, dependencies, deadline, template=True)
        try:
            cell.template = Template.connect(handle.socket, _limits(revision.config), self._ended)
        except OSError as error:
            raise DriverError(f"the template is gone: {error}") from error
        return loaded

    async def fork(self, template: Handle, spec: CellSpec) -> Handle:
        """Has the template fork an instance into a cgroup of its own."""
        origin = self._living(template)
        parent, group = origin.template, self._group_of(spec.id)
        if parent is None or group is None:
            raise DriverError(f"{template.id} is no template")
        cell = Cell(spec.id, origin.runtime, spec.directory, group, origin.identity)
        cell.parent = parent

        async def fork() -> int:
            with cell.belongings() as descriptors:
                cell.limit(parent.limits)
                return await parent.fork(spec.id, group, descriptors)

        return await self._start(cell, fork)

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
        handle, config, limits = cell.handle, revision.config, _limits(revision.config)
        if config.egress_to:
            await self._narrow(cell, config.egress_to)
        cell.let_go_of_namespace()
        cell.limit(limits)
        confinement = Confinement(
            code=self._inside(code),
            dependencies=None if dependencies is None else self._inside(dependencies),
            hostname=revision.function,
            # Half of the memory that it counts against: a full /tmp is an error to handle, not the end.
            scratch=config.memory // 2,
            open_files=_OPEN_FILES + _OPEN_FILES_PER_REQUEST * config.concurrency,
            # Forks have one user, and each a cgroup.
            processes=None if template else limits.processes,
            every_cpu=(config.cpu_limit or 0) > _WHOLE_CORE,
        )
        confined = self._means.confined
        visible_dependencies = root.DEPENDENCIES if confined else UNCONFINED_DEPENDENCIES
        document = contract.specialisation(
            revision,
            code=root.FUNCTION if confined else UNCONFINED_CODE,
            dependencies=None if dependencies is None else visible_dependencies,
            max_body=self._max_body,
            template=template,
        )
        document[CONFINEMENT] = asdict(confinement)
        try:
            return await contract.specialise(handle.socket, document, deadline)
        except LoadFailed as error:
            if error.kind == "Crashed" and (failure := _out_of_memory(cell, revision)):
                raise failure from None
            raise
        except FetchError as error:
            failure = await self._why_no_answer(cell, revision, deadline, error)
            raise failure from None

    async def recover(self, handle: Handle) -> bool:
        """Whether a zygote that was taken over has the sandbox; its cgroup and user id are in use then."""
        cell = self._cells.get(handle.id)
        if cell is None:
            cell = self._claim(handle)
        return cell is not None and not cell.ended.done()

    async def sweep(self) -> None:
        """Ends the cells that nobody has recovered, and what is left of others in the lane's cgroup."""
        for zygote in await asyncio.gather(*self._zygotes.values()):
            for cell in zygote.cells.keys() - self._cells.keys():
                await zygote.signal(cell, signal.SIGKILL)
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
        usage = None if cell is None or cell.group is None else cell.group.usage()
        return None if usage is None else Stats(**asdict(usage))

    def _living(self, handle: Handle) -> Cell:
        cell = self._cells.get(handle.id)
        if cell is None or cell.ended.done():
            raise DriverError(f"the cell {handle.id} is gone")
        return cell

    async def _namespace(self, network: Network) -> int | None:
        """Returns what a cell of this network joins; None where it makes its own, or shares the host's."""
        if network is Network.HOST and not self._allow_host_network:
            raise DriverError("system.allow_host_network is off")
        if network is not Network.EGRESS or not self._means.confined:
            return None
        if self._egress is None:
            raise DriverError("this lane gives no cell a way out")
        return await self._egress.make()

    async def _narrow(self, cell: Cell, destinations: Sequence[Destination]) -> None:
        if self._egress is None or cell.namespace is None:
            raise DriverError(f"the cell {cell.id} has no network that could be narrowed (egress_to)")
        await self._egress.narrow(cell.namespace, destinations)

    async def _zygote(self, name: str) -> Zygote:
        """Returns the living zygote of a runtime, started where there is none."""
        try:
            runtime = self._runtimes.resolve(name)
        except Invalid as error:
            raise DriverError(error.detail) from None
        starting = self._zygotes.get(runtime.name)
        if starting is None or (starting.done() and not _lives(starting)):
            starting = self._zygotes[runtime.name] = asyncio.create_task(self._start_zygote(runtime))
        return await asyncio.shield(starting)

    def _claim(self, handle: Handle) -> Cell | None:
        """Returns the cell of a handle from an earlier life, if it lives."""
        try:
            starting = self._zygotes.get(self._runtimes.resolve(handle.runtime).name)
        except Invalid:
            return None
        if starting is None or not starting.done() or not _lives(starting):
            return None
        zygote, group = starting.result(), self._group_of(handle.id)
        identity = handle.state.get("identity")
        if handle.pid is None or zygote.cells.get(handle.id) != handle.pid or not isinstance(identity, int):
            return None
        self._identities.hold(identity)
        cell = Cell(handle.id, handle.runtime, Path(handle.socket).parent, group, identity)
        cell.parent, cell.pid, cell.in_service = zygote, handle.pid, True
        self._cells[handle.id] = cell
        return cell

    def _socket_of(self, runtime: str) -> Path:
        return self._run / f"{runtime}{ZYGOTE}"

    def _group_of(self, cell: str) -> Group | None:
        return None if self._group is None else self._group.below(cell)

    async def _start_zygote(self, runtime: Runtime) -> Zygote:
        try:
            startup = Startup.of(runtime, confined=self._means.confined)
        except Invalid as error:
            raise DriverError(error.detail) from None
        plan = Plan(
            module=startup.module,
            module_folder=str(startup.module_folder),
            program=startup.program,
            shown=startup.shown,
            packages=str(self._packages),
            root=str(self._root),
            resolvers=Resolvers.find().text,
            means=self._means,
            calls=self._calls,
            groups=[] if self._group is None else self._group.directories,
            lease=self._lease,
        )
        at = self._socket_of(runtime.name)
        return await Zygote.start(at, INTERPRETER, plan, self._ended, self._on_observed)

    @property
    def _forks(self) -> bool:
        """Whether there is a sandbox to fork in, and power to move what is forked into a cgroup."""
        confined_by_root = self._means.confined and self._means.ids is None
        return confined_by_root and self._group is not None and self._on_observed is None

    @property
    def _calls(self) -> Literal["filtered", "observed", "unfiltered"]:
        if not self._filtered:
            return "unfiltered"
        return "filtered" if self._on_observed is None else "observed"

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
        if not self._means.confined:
            return str(package.absolute())
        try:
            return str(package.absolute().relative_to(self._packages))
        except ValueError:
            raise DriverError(f"{package} is not in the folder of packages, {self._packages}") from None


def _limits(config: FunctionConfig) -> Limits:
    processes = _PROCESSES + _PROCESSES_PER_REQUEST * config.concurrency
    return Limits(config.memory, config.cpu_limit, processes)


_USUAL_LIMITS = _limits(FunctionConfig())
"""Set ahead, because most functions keep them."""


def _out_of_memory(cell: Cell, revision: Revision) -> LoadFailed | None:
    """Returns what to say of a cell whose processes the kernel has ended for memory; None where it has not."""
    usage = None if cell.group is None else cell.group.usage()
    if usage is None or not usage.oom_kills:
        return None
    memory = format_bytes(revision.config.memory)
    return LoadFailed("OutOfMemory", f"loading the code took more than its memory limit of {memory}")


def _lives(starting: asyncio.Future[Zygote]) -> bool:
    return not starting.cancelled() and starting.exception() is None and starting.result().alive


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
