"""The driver itself: see the package."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from martlet.destination import Destination
from martlet.drivers.docker.cell import Cell
from martlet.drivers.docker.document import document
from martlet.drivers.docker.engine import Engine, EngineError
from martlet.drivers.docker.images import FUNCTIONS, ROOTS, Copies, Images
from martlet.drivers.docker.labels import Labels
from martlet.drivers.docker.service import WHAT_TO_DO, Service
from martlet.drivers.docker.shown import Shown
from martlet.drivers.docker.strangers import Strangers
from martlet.drivers.docker.verification import lacks
from martlet.drivers.docker.visits import Visits, network_of
from martlet.drivers.driver import CellSpec, DriverError, Guarantee, Handle, Loaded, LoadFailed, OnExit, State
from martlet.drivers.egress import Egress
from martlet.drivers.frames import frame_of
from martlet.drivers.identities import Identities
from martlet.drivers.mandatory import in_force
from martlet.drivers.own_images import OwnImages
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.roots import HostRoots, Roots
from martlet.drivers.sandboxes import USUAL_LIMITS, SandboxDriver
from martlet.drivers.startup import Startup
from martlet.errors import Invalid
from martlet.http.conversation import Conversation
from martlet.model import MiB, Network, Revision
from martlet.runtimes import Catalogue, Runtime
from martlet.sandbox.bundle import Frame
from martlet.sandbox.cgroups import Limits
from martlet.sandbox.inside import Task
from martlet.sandbox.launcher import Confinement

log = structlog.get_logger()

_PROMISE = "functions with execution_mode: container run, each in a container of its own"
_START_SECONDS = 30.0
_END_SECONDS = 5.0
_STARTS_AT_ONCE = 4
_FIRST_SIGNAL, _LAST_SIGNAL = 129, 192


class DockerDriver(SandboxDriver[Cell]):
    """See the package.

    Args:
        lane: as all that is not named here, for `SandboxDriver`; the run directory names the containers, too.
        roots: where the roots of runtimes come from.
        service: the way to the engine; it is closed with the driver.
        images: the folder of those that functions may be; None: there are none.
        identities: the user ids of its cells; those of the lane by default.

    Attributes:
        label: what confined the container that `probe` started, besides.
    """

    name = "container"

    def __init__(
        self,
        lane: int,
        run: Path,
        roots: Roots,
        service: Service,
        *,
        images: Path | None = None,
        identities: Identities | None = None,
        egress: Egress | None = None,
        allow_host_network: bool = False,
        max_body: int = 20 * MiB,
        runtimes: Catalogue | None = None,
    ) -> None:
        super().__init__(
            lane,
            run,
            identities=identities or Identities(lane),
            egress=egress,
            allow_host_network=allow_host_network,
            max_body=max_body,
            runtimes=runtimes,
        )
        self.label = ""
        self._labels = Labels.of(run, lane)
        self._service = service
        self._visits = Visits()
        folder = self._run / "containers"
        self._shown = Shown(folder / "shown", Resolvers.find().text)
        self._copies: dict[str, Copies] = {}
        if images is not None:
            self._own_images = OwnImages(images, folder / "of_images", f"lane-{lane}")
            lock = run.absolute() / "copies.lock"
            for purpose in (ROOTS, FUNCTIONS):
                self._copies[purpose] = Copies(images, purpose, self._labels.platform, lock)
        self._images = Images(roots, self._copies.get(ROOTS))
        self._turns = asyncio.Semaphore(_STARTS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = Strangers(service, self._labels, lambda: self._cells)

    def probe(self) -> list[Guarantee]:
        """Returns whether this machine runs containers, by starting one that is thrown away."""
        engine = self._service.name
        try:
            with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop already
                self.label = thread.submit(asyncio.run, self._rehearse()).result()
        except DriverError as error:
            why, _, remedy = str(error).partition(WHAT_TO_DO)
            remedy = remedy or f"see what {engine} itself says, or choose another container_runtime"
            return [Guarantee("containers", _PROMISE, State.MISSING, why, remedy, needed=False)]
        return [Guarantee("containers", _PROMISE, State.HELD, f"by {engine}", needed=False)]

    async def open(self, on_exit: OnExit) -> None:
        """Makes the driver ready. The engine is not needed before the first start, and may come and go."""
        if os.geteuid() != 0:
            raise DriverError(f"it takes root to mount code in containers{WHAT_TO_DO}run Martlet as root")
        self._on_exit = on_exit
        self._run.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._shown.make)
        self._service.note(self._run)
        if self._egress is not None:
            await self._egress.open()

    async def close(self) -> None:
        """Destroys every cell and instance, and ends podman's service where this driver has started it."""
        await asyncio.gather(*(self._remove(cell) for cell in list(self._cells.values())))
        await self._strangers.close()
        await self._service.close()
        self._visits.close()
        if self._egress is not None:
            await self._egress.close()

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a container; returns once the runtime in it answers for its health."""
        runtime = self._resolve(spec.runtime)
        self._permit(spec.network)
        if spec.network is Network.EGRESS:
            self._way_out()
        name = self._labels.name(spec.id)
        identity = self._identities.take()
        cell = Cell(self.name, spec.id, spec.runtime, spec.directory, identity, name, spec.image)
        self._cells[cell.id] = cell
        try:
            await self._start(cell, runtime, spec.network)
        except (OSError, DriverError) as error:
            await self._remove(cell)
            raise DriverError(f"no cell could be started: {error}") from error
        except BaseException:
            await self._remove(cell)
            raise
        cell.in_service = True
        return cell.handle

    async def specialise_connected(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> tuple[Loaded, Conversation | None]:
        """Does what that of every sandbox does, once."""
        cell = self._living(handle)
        if cell.used:
            raise DriverError(f"the cell {handle.id} has code already")
        cell.used = True
        try:
            return await super().specialise_connected(handle, revision, code, dependencies, deadline)
        except OSError as error:
            raise DriverError(f"the cell {cell.id} cannot be given code: {error}") from error

    async def sweep(self) -> None:
        """Removes the containers of the lane that nobody has recovered; later, where the engine does not answer."""
        await self._strangers.sweep()
        for copies in self._copies.values():
            with suppress(EngineError):  # the next copy is another occasion
                await copies.prune(await self._service.reach())

    async def _start(self, cell: Cell, runtime: Runtime, network: Network) -> None:
        cell.network = network
        cell.make_folders()
        async with self._turns:
            engine = await self._service.reach()
            # Not to be interrupted: nobody would know whether there is a container.
            cell.making = asyncio.create_task(self._make(engine, cell, runtime, network))
            await asyncio.shield(cell.making)
            found = await engine.inspect(cell.container)
            if found is None or not found["State"]["Pid"]:
                raise DriverError(f"it ended at once: {_last_words(found)}")
            cell.watch(found["State"]["Pid"], self._over)
        assert cell.pid is not None
        _verify(lacks(cell.pid, cell.identity, network, USUAL_LIMITS))
        if network is Network.EGRESS:
            with network_of(cell.pid) as namespace:
                await self._way_out().equip(namespace)
        await cell.open_door(_START_SECONDS)

    async def _make(self, engine: Engine, cell: Cell, runtime: Runtime, network: Network) -> None:
        try:
            cell.container = await self._create(engine, cell, runtime, network)
        except EngineError as error:
            if error.status != 404:
                raise
            self._images.forget(runtime)  # somebody has removed the image
            cell.container = await self._create(engine, cell, runtime, network)
        cell.limits = USUAL_LIMITS
        await engine.start(cell.container)

    async def _create(self, engine: Engine, cell: Cell, runtime: Runtime, network: Network) -> str:
        if cell.image is None:
            image, frame = await self._root_of(runtime, engine)
        else:
            image, frame = await self._copy_of(cell.id, cell.image, engine)
        configuration = document(
            image=image,
            frame=frame,
            shown=self._shown.binds(network),
            network=network,
            identity=cell.identity,
            limits=USUAL_LIMITS,
            door=cell.door,
            code=cell.code,
            labels=self._labels.of_cell(cell.id),
        )
        return await engine.create(self._labels.name(cell.id), configuration)

    async def _root_of(self, runtime: Runtime, engine: Engine) -> tuple[str, Frame]:
        made = await self._images.of(runtime, engine)
        try:
            startup = Startup.of(made.root.runtime, confined=True)
        except Invalid as error:
            raise DriverError(error.detail) from None
        task = Task(startup.module, startup.seen_folder, startup.program, own_kernel=False)
        return made.image, frame_of(made.root, task)

    async def _copy_of(self, cell: str, reference: str, engine: Engine) -> tuple[str, Frame]:
        own, copies = self._own_images, self._copies.get(FUNCTIONS)
        if own is None or copies is None:
            raise LoadFailed("NoImages", "this lane has no images")
        image = await asyncio.to_thread(own.take, cell, reference)
        # Before it is copied: this gives it the places for what is bound.
        frame = await asyncio.to_thread(own.frame, image)
        return await copies.of(image, engine), frame

    async def _narrow(self, cell: Cell, destinations: Sequence[Destination]) -> None:
        if self._egress is None or cell.network is not Network.EGRESS or cell.pid is None:
            raise DriverError(f"the cell {cell.id} has no network that could be narrowed (egress_to)")
        with network_of(cell.pid) as namespace:
            await self._egress.narrow(namespace, destinations)

    async def _limit(self, cell: Cell, limits: Limits) -> None:
        if limits != cell.limits:
            engine = await self._service.reach()
            await engine.limit(cell.container, limits)
            cell.limits = limits

    async def _equip(
        self, cell: Cell, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        assert cell.pid is not None
        await self._visits.furnish(cell.pid, confinement, named=cell.network is not Network.HOST)
        if cell.over:  # and what was done was done to somebody else, or nobody
            raise DriverError(f"the cell {cell.id} is gone")
        return self._document(cell, revision, confinement, template=template)

    async def _signal(self, cell: Cell, number: signal.Signals) -> None:
        cell.signal(number)

    async def _claim(self, handle: Handle) -> Cell | None:
        identity, container = handle.state.get("identity"), handle.state.get("container")
        image = handle.state.get("image")
        if not isinstance(identity, int) or not isinstance(container, str):
            return None
        found = await (await self._service.reach()).inspect(container)
        if found is None or not found["State"]["Running"] or found["State"]["Pid"] != handle.pid:
            return None
        directory = Path(handle.socket).parent
        cell = Cell(self.name, handle.id, handle.runtime, directory, identity, container, image)
        with suppress(OSError, DriverError):
            cell.watch(found["State"]["Pid"], self._over)
            self._identities.hold(identity)
            cell.used = cell.in_service = True
            self._cells[cell.id] = cell
            return cell
        cell.let_go()
        return None

    def _over(self, cell: Cell) -> None:
        if cell.removal is not None:
            cell.ended.set_result(-signal.SIGKILL)
            return
        task = asyncio.create_task(self._settle(cell))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, cell: Cell) -> None:
        """Asks the engine how a container has ended, and tells whom that concerns."""
        code = -signal.SIGKILL
        try:
            engine = await self._service.reach()
            code = await engine.wait(cell.container, _END_SECONDS)
            found = await engine.inspect(cell.container)
            if found is None:
                code = -signal.SIGKILL  # somebody has removed it; podman says 0 of some of these
            elif found["State"].get("OOMKilled"):
                cell.out_of_memory = max(cell.out_of_memory, 1)
        except EngineError as error:
            log.warning("end_unexplained", cell=cell.id, error=str(error))
        if code in range(_FIRST_SIGNAL, _LAST_SIGNAL + 1):
            code = 128 - code
        cell.ended.set_result(code)
        if cell.in_service:
            self._on_exit(cell.id, code)

    async def _end(self, cell: Cell) -> None:
        cell.signal(signal.SIGKILL)
        if cell.making is not None:
            await asyncio.wait([cell.making])
        if cell.making is not None or cell.pid is not None:
            await self._strangers.remove(cell.container, ran=cell.pid is not None)
        cell.let_go()
        shutil.rmtree(cell.directory, ignore_errors=True)

    async def _remove_remains(self, handle: Handle) -> None:
        await self._strangers.remove(self._labels.name(handle.id), ran=True)
        shutil.rmtree(Path(handle.socket).parent, ignore_errors=True)

    async def _rehearse(self) -> str:
        """Starts a container as a platform of its own would, in the event loop of this thread.

        Returns:
            What AppArmor or SELinux confines it by.

        Raises:
            DriverError: it does not start.
        """
        self._run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._run) as folder:
            trial = DockerDriver(
                self._lane,
                Path(folder),
                HostRoots(Path(folder, "roots"), Resolvers.find().text),  # no image is made to try an engine
                self._service.another(),
                identities=self._identities,
                runtimes=self._runtimes,
            )
            try:
                await trial.open(lambda *_: None)
                handle = await trial.start(CellSpec("trial", "python", Network.NONE, Path(folder, "trial")))
                assert handle.pid is not None
                return in_force(handle.pid)
            finally:
                await trial.close()


def _last_words(found: dict[str, Any] | None) -> str:
    state = {} if found is None else found["State"]
    return state.get("Error") or f"exit code {state.get('ExitCode')}"


def _verify(lacking: dict[str, str]) -> None:
    if lacking:
        words = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise DriverError(f"the engine does not confine it as it was asked to. {words}")
