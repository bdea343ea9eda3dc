"""What drivers have in common whose cells are processes of this machine, below a parent that starts them.

    lane (the driver) ── parent, one a runtime ──┬── cell        socket, log, cgroup and user id of its own
                                                 └── instance

A parent outlives its lane for the length of a lease, and with it the instances, which the lane's next life takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from martlet.destination import Destination
from martlet.drivers import contract
from martlet.drivers.beat import Beat
from martlet.drivers.cell import Cell, empty, remove_remains
from martlet.drivers.driver import (
    CellSpec,
    DriverError,
    Guarantee,
    Handle,
    LoadFailed,
    NotStarted,
    OnExit,
)
from martlet.drivers.egress import Egress
from martlet.drivers.identities import Identities
from martlet.drivers.parent import Parent
from martlet.drivers.place import Place
from martlet.drivers.remains import group_name, socket_name
from martlet.drivers.sandboxes import SandboxDriver
from martlet.drivers.template import Template
from martlet.errors import Invalid
from martlet.http.conversation import Conversation
from martlet.http.fetch import FetchError
from martlet.model import FunctionConfig, Network
from martlet.runtimes import Catalogue, Runtime
from martlet.sandbox.cgroups import USUAL_WEIGHT, Group, Limits

START_SECONDS = 30.0
"""What the start of a cell may take, where dozens of programs start at once and the machine has much else to do too."""
_LAST_WORDS_SECONDS = 1.0
# Of a core that is wanted by more. Together the instances of a lane have less than the lane, which serves all of them.
_WEIGHT_OF_ALL = USUAL_WEIGHT // 2
_WEIGHT_OF_WHO_GIVES_WAY = USUAL_WEIGHT // 10
_BEAT = "beat"
"""The group of what is no cell, and wakes on the core while one computes."""
LEASE = 30.0
"""Seconds that a parent waits for the next life of its lane, which on a busy machine takes several to start."""


ParentT = TypeVar("ParentT", bound=Parent)


class LocalDriver(SandboxDriver[Cell], Generic[ParentT]):
    """See the module.

    Args:
        lane: as all that is not named here, for `SandboxDriver`; the run directory names the cgroup, too.
        packages: the folder with all unpacked packages; code and dependencies lie in it.
        isolation: whether to refuse or to accept a host on which a guarantee is not held.
        lease: seconds that parents wait for the next life of the lane.
    """

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
        super().__init__(
            lane,
            run,
            identities=identities,
            egress=egress,
            allow_host_network=allow_host_network,
            max_body=max_body,
            runtimes=runtimes,
        )
        self._packages = packages.absolute()
        self._group_name = group_name(run, f"{lane}-{self.name}")
        self._isolation = isolation
        self._lease = lease
        self._confined = True
        self._group: Group | None = None
        self._beat: Beat | None = None
        self._giving: set[str] = set()
        self._parents: dict[str, asyncio.Future[ParentT]] = {}
        self._places: dict[str, Place] = {}

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
    async def _start_cell(self, parent: ParentT, cell: Cell, network: Network) -> None:
        """Starts the process of a cell, in its cgroup, and notes its id, or what will be that (`_expect`). Raises
        `DriverError` or OSError."""

    async def _greet(self, cell: Cell) -> None:
        """Returns once the cell answers for its health; at once where that is urgent: its socket is there, and what it
        is sent waits in it. Raises `DriverError` or `FetchError`."""
        if not cell.urgent:
            cell.end_conversation()
            cell.conversation = await contract.greet(cell.socket, START_SECONDS)
        elif cell.conversation is None:
            cell.conversation = await Conversation.begin(cell.socket)

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
            if Beat.of_use():
                self._beat = Beat(self._group.below(_BEAT))
        if self._egress is not None:
            await self._egress.open()
        for name in (*(runtime.name for runtime in self._runtimes.available()), *self._further_parents):
            parent = await self._parents_of.find(self._socket_of(name), self._ended)
            if parent is not None:
                self._parents[name] = asyncio.get_running_loop().create_future()
                self._parents[name].set_result(parent)

    async def close(self) -> None:
        """Destroys every cell and instance, then the parents and the lane's cgroup."""
        while self._places:
            _, place = self._places.popitem()
            place.close()
            if place.conversation is not None:
                place.conversation.close()
            await remove_remains(place.directory, place.group)
        await asyncio.gather(*(self._remove(cell) for cell in list(self._cells.values())))
        for parent in await asyncio.gather(*self._parents.values(), return_exceptions=True):
            if isinstance(parent, Parent):
                await parent.close()
        for name in self._parents:
            self._socket_of(name).unlink(missing_ok=True)
        self._parents.clear()
        if self._beat is not None:
            self._beat.close()
        if self._group is not None:
            await empty(self._group)
        if self._egress is not None:
            await self._egress.close()

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a cell; returns once it answers for its health."""
        place = self._places.pop(spec.id, None)
        group = self._group_of(spec.id) if place is None else place.group
        identity = self._identities.take()
        cell = Cell(self.name, spec.id, spec.runtime, spec.directory, group, identity, spec.image, place)
        cell.urgent = spec.urgent

        async def begin() -> None:
            cell.namespace = await self._namespace(spec.network)
            cell.parent = parent = await self._parent_of(cell)
            await self._start_cell(parent, cell, spec.network)

        return await self._start(cell, begin)

    async def _start(self, cell: Cell, begin: Callable[[], Awaitable[None]]) -> Handle:
        self._cells[cell.id] = cell
        try:
            await begin()
            await self._greet(cell)
            if cell.ended.done():
                raise DriverError("it ended")
        except LoadFailed:
            await self._remove(cell)
            raise
        except (OSError, FetchError, DriverError) as error:
            began = cell.pid is not None or cell.forking is not None
            await asyncio.wait([cell.ended], timeout=_LAST_WORDS_SECONDS if began else 0)
            await self._remove(cell)
            raise DriverError(f"no cell could be started: {cell.failure or error}") from error
        except BaseException:
            await self._remove(cell)
            raise
        cell.in_service = True
        return cell.handle

    def _expect(self, cell: Cell, forking: asyncio.Future[int | None]) -> None:
        """Has the id of a cell that is handed out be noted when it is known. One that is refused has ended."""
        cell.forking = forking
        forking.add_done_callback(partial(self._forked, cell))

    def _forked(self, cell: Cell, forking: asyncio.Future[int | None]) -> None:
        error = forking.exception()
        if error is None:
            cell.pid = forking.result()
        else:
            self._ended(cell.id, -signal.SIGKILL, str(error))

    async def identify(self, handle: Handle) -> Handle:
        """Waits for the parent of an urgent cell, which says its id when that one has had its head start."""
        if handle.pid is None:
            forking = self._living(handle).forking
            if forking is not None:
                await asyncio.wait([forking])
        return await super().identify(handle)

    async def sweep(self) -> None:
        """Ends the cells that nobody has recovered, and what is left of others in the lane's cgroup."""
        for parent in await asyncio.gather(*self._parents.values()):
            for cell in parent.cells.keys() - self._cells.keys():
                await parent.signal(cell, signal.SIGKILL)
        if self._group is not None:
            beat = {_BEAT} if self._beat is not None and self._beat.begun else set()
            for name in self._group.names() - self._cells.keys() - beat:
                await empty(self._group.below(name))

    def cpu_ms(self, handle: Handle) -> float | None:
        """Returns what the cgroup counted; None on a host without cgroups."""
        cell = self._cells.get(handle.id)
        return None if cell is None or cell.group is None else cell.group.cpu_ms()

    def give_way(self, handle: Handle, gives: bool) -> None:
        """Changes the weight of the cgroup, and gives turns to those for whom it does so."""
        cell = self._cells.get(handle.id)
        if cell is not None and cell.group is not None:
            with contextlib.suppress(OSError):  # it is gone
                cell.group.weigh(_WEIGHT_OF_WHO_GIVES_WAY if gives else USUAL_WEIGHT)
            self._note(cell, gives=gives)

    def _note(self, cell: Cell, *, gives: bool) -> None:
        """Keeps the beat while a cell gives way."""
        before = bool(self._giving)
        (self._giving.add if gives else self._giving.discard)(cell.id)
        if self._beat is not None and bool(self._giving) != before:
            (self._beat.stop if before else self._beat.go_on)()

    async def _namespace(self, network: Network) -> int | None:
        """Returns what a cell of this network joins; None where it makes its own, or shares the host's."""
        self._permit(network)
        if network is not Network.EGRESS or not self._confined:
            return None
        return await self._make_way_out(self._way_out())

    async def _make_way_out(self, egress: Egress) -> int:
        return await egress.make()

    async def _narrow(self, cell: Cell, destinations: Sequence[Destination]) -> None:
        if self._egress is None or cell.namespace is None:
            raise DriverError(f"the cell {cell.id} has no network that could be narrowed (egress_to)")
        await self._egress.narrow(cell.namespace, destinations)

    async def _limit(self, cell: Cell, limits: Limits) -> None:
        cell.let_go_of_namespace()
        cell.limit(limits)

    async def _parent_of(self, cell: Cell) -> ParentT:
        """Returns the living parent for a cell that is to start."""
        runtime = self._resolve(cell.runtime)
        return await self._parent(runtime.name, lambda at: self._start_parent(runtime, at))

    async def _parent(self, name: str, start: Callable[[Path], Coroutine[Any, Any, ParentT]]) -> ParentT:
        """Returns the living parent of this name, started where there is none."""
        starting = self._parents.get(name)
        if starting is None or (starting.done() and not _lives(starting)):
            starting = self._parents[name] = asyncio.create_task(start(self._socket_of(name)))
        return await asyncio.shield(starting)

    def _name_of_parent(self, handle: Handle) -> str:
        """Returns the name of the parent that has started a cell. Raises `Invalid` where there is none any more."""
        return self._runtimes.resolve(handle.runtime).name

    async def _claim(self, handle: Handle) -> Cell | None:
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

    def _ended(self, id: str, code: int, failure: str | None) -> None:  # noqa: A002
        cell = self._cells.get(id)
        if cell is None or cell.ended.done():
            return
        cell.failure = failure
        cell.ended.set_result(code)
        if cell.in_service:
            self._on_exit(id, code)

    def _living(self, handle: Handle) -> Cell:
        cell = self._cells.get(handle.id)
        if cell is not None and (error := _not_started(cell)):
            raise error
        return super()._living(handle)

    async def _why_no_answer(
        self, cell: Cell, config: FunctionConfig, deadline: float, error: FetchError
    ) -> DriverError:
        why = await super()._why_no_answer(cell, config, deadline, error)
        return _not_started(cell) or why

    async def _signal(self, cell: Cell, number: signal.Signals) -> None:
        if cell.parent is not None:
            await cell.parent.signal(cell.id, number)

    async def _end(self, cell: Cell) -> None:
        await cell.remove()

    async def _remove_remains(self, handle: Handle) -> None:
        await remove_remains(Path(handle.socket).parent, self._group_of(handle.id))

    def _let_go(self, cell: Cell) -> None:
        self._note(cell, gives=False)
        if cell.template is not None:
            cell.template.close()
        if not isinstance(cell.parent, Template):  # whose the identity is
            super()._let_go(cell)

    def _inside(self, package: Path) -> str:
        """Returns the name of a package as the sandbox knows it."""
        if not self._confined:
            return str(package.absolute())
        # As text: to take paths apart is a good part of what a lane does for a start.
        place, folder = os.path.abspath(package), f"{self._packages}/"
        if not place.startswith(folder):
            raise DriverError(f"{package} is not in the folder of packages, {self._packages}")
        return place.removeprefix(folder)


def _lives(starting: asyncio.Future[ParentT]) -> bool:
    return not starting.cancelled() and starting.exception() is None and starting.result().alive


def _not_started(cell: Cell) -> NotStarted | None:
    """Returns why a cell that is over has never been one, if so; of one that was urgent nobody knows before."""
    if cell.failure is not None:
        return NotStarted(f"no cell could be started: {cell.failure}")
    if cell.urgent and cell.over and isinstance(cell.parent, Parent) and not cell.parent.alive:
        return NotStarted(f"no cell could be started: the {cell.parent.program} is gone")
    return None
