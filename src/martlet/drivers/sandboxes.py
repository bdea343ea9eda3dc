"""What drivers have in common whose cells are sandboxes of this machine: how one becomes an instance, and ends."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from martlet.destination import Destination
from martlet.drivers import contract, own_images
from martlet.drivers.driver import DriverError, Handle, Loaded, LoadFailed, OnExit, Stats
from martlet.drivers.egress import Egress
from martlet.drivers.held import Held
from martlet.drivers.identities import Identities
from martlet.drivers.listening import not_served, ports_of
from martlet.drivers.own_images import PROGRAM, OwnImages
from martlet.errors import Invalid
from martlet.http.conversation import Conversation
from martlet.http.fetch import FetchError
from martlet.model import FunctionConfig, Network, Revision
from martlet.runtimes import Catalogue, Runtime
from martlet.sandbox import root
from martlet.sandbox.cgroups import Limits
from martlet.sandbox.inside import CONFINEMENT
from martlet.sandbox.launcher import Confinement
from martlet.units import format_bytes

_LAST_WORDS_SECONDS = 2.0
"""An engine has to be asked how a container has ended."""
# What an instance may have of processes (threads too) and of descriptors, for itself and for each request at once:
# room for an ordinary program with its thread pools, and none for a bomb.
_PROCESSES, _PROCESSES_PER_REQUEST = 128, 4
_OPEN_FILES, _OPEN_FILES_PER_REQUEST = 1024, 2
_WHOLE_CORE = 1000

CellT = TypeVar("CellT", bound=Held)


class SandboxDriver(ABC, Generic[CellT]):
    """See the module. It belongs to one event loop.

    Args:
        lane: number of the lane, from 0.
        run: the platform's run directory, its alone on this machine.
        identities: the user ids of its cells.
        egress: gives cells a way out; None: there are none that have one.
        allow_host_network: whether there may be cells in the network of the host.
        max_body: bytes of the largest request body, for the runtime.
        runtimes: those it may start; all of this machine by default.
    """

    name: str

    def __init__(
        self,
        lane: int,
        run: Path,
        *,
        identities: Identities,
        egress: Egress | None,
        allow_host_network: bool,
        max_body: int,
        runtimes: Catalogue | None,
    ) -> None:
        self._lane = lane
        self._run = run.absolute() / f"lane-{lane}"
        self._identities = identities
        self._egress = egress
        self._allow_host_network = allow_host_network
        self._max_body = max_body
        self._runtimes = runtimes or Catalogue.load()
        self._own_images: OwnImages | None = None
        self._cells: dict[str, CellT] = {}
        self._on_exit: OnExit = lambda *_: None

    # -- what differs

    @abstractmethod
    async def _narrow(self, cell: CellT, destinations: Sequence[Destination]) -> None:
        """Lets a cell with a way out reach these only. Raises `DriverError`, or OSError, as those below do."""

    @abstractmethod
    async def _limit(self, cell: CellT, limits: Limits) -> None:
        """Gives the cgroup of a cell the limits of an instance."""

    @abstractmethod
    async def _equip(
        self, cell: CellT, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        """Gives a cell, whose limits are set, what is outside of it to give.

        Returns:
            The document that makes it an instance, or a template.
        """

    @abstractmethod
    async def _claim(self, handle: Handle) -> CellT | None:
        """Returns the cell of a handle from an earlier life, if it lives."""

    @abstractmethod
    async def _signal(self, cell: CellT, number: signal.Signals) -> None:
        """Sends a signal to a cell."""

    @abstractmethod
    async def _end(self, cell: CellT) -> None:
        """Kills a cell and removes all that it has on this machine. Raises `DriverError` where it does not end."""

    @abstractmethod
    async def _remove_remains(self, handle: Handle) -> None:
        """Removes what may be left of the cell of a handle, which is none of this life's."""

    # -- what does not

    async def specialise(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Sets the limits of the revision, gives the cell its code, and has it confine itself and load that."""
        loaded, conversation = await self.specialise_connected(handle, revision, code, dependencies, deadline)
        if conversation is not None:
            conversation.close()
        return loaded

    async def specialise_connected(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> tuple[Loaded, Conversation | None]:
        """Does what `specialise` does, over the connection on which the cell has answered for its health."""
        cell = self._living(handle)
        loaded = await self._specialise(cell, revision, code, dependencies, deadline)
        conversation, cell.conversation = cell.conversation, None
        return loaded, conversation if conversation is not None and conversation.open else None

    async def _specialise(
        self,
        cell: CellT,
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
        await self._limit(cell, self._limits_of(config))
        confinement = Confinement(
            code=self._inside(code),
            dependencies=None if dependencies is None else self._inside(dependencies),
            hostname=revision.function,
            scratch=scratch_of(config),
            open_files=open_files_of(config),
            # Forks have one user, and each a cgroup.
            processes=None if template else limits_of(config).processes,
            every_cpu=(config.cpu_limit or 0) > _WHOLE_CORE,
        )
        document = await self._equip(cell, revision, confinement, template=template)
        try:
            return await contract.specialise(cell.socket, document, deadline, cell.conversation)
        except LoadFailed as error:
            if error.kind == "Crashed" and (failure := _out_of_memory(cell, config)):
                raise failure from None
            raise (error if cell.image is None else own_images.explained(error)) from None
        except FetchError as error:
            raise await self._why_no_answer(cell, config, deadline, error) from None

    async def identify(self, handle: Handle) -> Handle:
        """Returns the handle with what is known by now."""
        return handle if handle.pid is not None else self._living(handle).handle

    async def recover(self, handle: Handle) -> bool:
        """Whether the sandbox of a handle from an earlier life lives; all that it has is in use then."""
        cell = self._cells.get(handle.id) or await self._claim(handle)
        if cell is None or cell.over:
            return False
        if cell.image is not None and self._own_images is not None:
            with suppress(LoadFailed):  # its files are gone, and it goes on with those that it has open
                await asyncio.to_thread(self._own_images.take, cell.id, cell.image)
        return True

    async def stop(self, handle: Handle, grace: float) -> None:
        """Sends SIGTERM, waits ``grace`` seconds, then destroys."""
        cell = self._cells.get(handle.id)
        if cell is not None:
            cell.in_service = False
            await self._signal(cell, signal.SIGTERM)
            await asyncio.wait([cell.ended], timeout=grace)
        await self.destroy(handle)

    async def destroy(self, handle: Handle) -> None:
        """Kills the sandbox and removes its cgroup, socket, log and directory."""
        cell = self._cells.get(handle.id)
        if cell is not None:
            await self._remove(cell)
        else:
            await self._remove_remains(handle)

    async def stats(self, handle: Handle) -> Stats | None:
        """Returns what its cgroup counted, until the sandbox is destroyed; None on a host without cgroups."""
        cell = self._cells.get(handle.id)
        usage = None if cell is None else cell.usage()
        return None if usage is None else Stats(*usage)

    def _living(self, handle: Handle) -> CellT:
        cell = self._cells.get(handle.id)
        if cell is None or cell.over:
            raise DriverError(f"the cell {handle.id} is gone")
        return cell

    def _resolve(self, name: str) -> Runtime:
        try:
            return self._runtimes.resolve(name)
        except Invalid as error:
            raise DriverError(error.detail) from None

    def _permit(self, network: Network) -> None:
        """Returns where cells may have this network. Raises `DriverError`."""
        if network is Network.HOST and not self._allow_host_network:
            raise DriverError("system.allow_host_network is off")

    def _way_out(self) -> Egress:
        """Returns what gives cells a way out. Raises `DriverError` where there is none."""
        if self._egress is None:
            raise DriverError("this lane gives no cell a way out")
        return self._egress

    def _listening(self, cell: CellT) -> list[int]:
        """Returns the TCP ports that a cell listens on, as far as they can be seen from outside."""
        return [] if cell.pid is None else ports_of(cell.pid)

    def _limits_of(self, config: FunctionConfig) -> Limits:
        """Returns what the cgroup of a cell is limited to: what a function may have, and what its sandbox takes."""
        return limits_of(config)

    def _document(
        self,
        cell: CellT,
        revision: Revision,
        confinement: Confinement,
        *,
        template: bool,
        seen: tuple[str, str] = (root.FUNCTION, root.DEPENDENCIES),
    ) -> dict[str, Any]:
        """Returns what makes a cell an instance, or a template; ``seen``: where it sees code and dependencies."""
        if cell.image is not None:
            seen = own_images.FUNCTION, own_images.DEPENDENCIES
        document = contract.specialisation(
            revision,
            code=seen[0],
            dependencies=None if confinement.dependencies is None else seen[1],
            max_body=self._max_body,
            template=template,
        )
        document[CONFINEMENT] = confinement._asdict()
        if cell.image is not None and self._own_images is not None:
            document[PROGRAM] = self._own_images.program(cell.id, revision.config)
        return document

    def _inside(self, package: Path) -> str:
        """Returns what a package is called where it is shown to a cell."""
        return str(package.absolute())

    async def _remove(self, cell: CellT) -> None:
        cell.in_service = False
        cell.end_conversation()
        if cell.removal is None or cell.removal.done():
            cell.removal = asyncio.create_task(self._forget(cell))
        await asyncio.shield(cell.removal)

    async def _forget(self, cell: CellT) -> None:
        await self._end(cell)
        if self._cells.pop(cell.id, None) is not None:
            self._let_go(cell)

    def _let_go(self, cell: CellT) -> None:
        """Gives back what a cell that is gone had taken."""
        self._identities.give_back(cell.identity)
        if self._own_images is not None:
            self._own_images.let_go(cell.id)

    async def _why_no_answer(
        self, cell: CellT, config: FunctionConfig, deadline: float, error: FetchError
    ) -> DriverError:
        """Returns why a cell did not answer when it was given code; it is dead afterwards."""
        if isinstance(error.__cause__, TimeoutError):
            is_server = (
                cell.image is not None or self._resolve(cell.runtime).description.start.listen == "port"
            )
            listening = self._listening(cell) if is_server else []
            await self._remove(cell)
            if is_server:
                return not_served("program" if cell.image is None else "image", deadline, listening)
            return LoadFailed("Timeout", f"the code did not load within {deadline:g} s")
        await asyncio.wait([cell.ended], timeout=_LAST_WORDS_SECONDS)
        if failure := _out_of_memory(cell, config):
            return failure
        if not cell.ended.done():
            return LoadFailed("BadAnswer", f"the code answered in place of the runtime: {error}")
        return LoadFailed("Crashed", f"the process {_how(cell.ended.result())} while it loaded the code")


def limits_of(config: FunctionConfig) -> Limits:
    """Returns what the cgroup of an instance is limited to."""
    processes = _PROCESSES + _PROCESSES_PER_REQUEST * config.concurrency
    return Limits(config.memory, config.cpu_limit, processes)


def open_files_of(config: FunctionConfig) -> int:
    """Returns how many descriptors a process of an instance may have."""
    return _OPEN_FILES + _OPEN_FILES_PER_REQUEST * config.concurrency


def scratch_of(config: FunctionConfig) -> int:
    """Returns the bytes that ``/tmp`` may hold: half of the memory, so that a full one is an error and not the end."""
    return config.memory // 2


USUAL_LIMITS = limits_of(FunctionConfig())
"""Set ahead, because most functions keep them."""


def _out_of_memory(cell: Held, config: FunctionConfig) -> LoadFailed | None:
    """Returns what to say of a cell whose processes the kernel has ended for memory; None where it has not."""
    usage = cell.usage()
    if usage is None or not usage.oom_kills:
        return None
    memory = format_bytes(config.memory)
    return LoadFailed("OutOfMemory", f"loading the code took more than its memory limit of {memory}")


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
