"""The driver of the `container` rung: a keeper has an engine start containers, which wait for their code.

    lane (this driver) ── keeper, one a runtime ──┬── container   socket, log, cgroup and user id of its own
                                                  └── container

What a container is made of is in `martlet.sandbox`: `bundle`, `keeper`, and `inside`, which runs in it. Its code
reaches it by a mount that is made once it runs. What takes power is done from outside: it never has any itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from martlet.drivers import door
from martlet.drivers.cell import Cell, empty
from martlet.drivers.driver import CellSpec, DriverError, Guarantee, Handle, LoadFailed, State
from martlet.drivers.egress import Egress
from martlet.drivers.frames import NO_LABELS, frame_of
from martlet.drivers.identities import Identities
from martlet.drivers.keeper import Keeper
from martlet.drivers.local import LEASE, START_SECONDS, LocalDriver
from martlet.drivers.mandatory import Labels, in_force
from martlet.drivers.own_images import OwnImages
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.roots import HostRoots, Roots
from martlet.drivers.startup import Startup
from martlet.errors import Invalid
from martlet.model import FunctionConfig, MiB, Network, Revision
from martlet.runtimes import INTERPRETER, Catalogue, Runtime
from martlet.runtimes.interpreter import PREFIX
from martlet.sandbox import pause
from martlet.sandbox.bundle import PAUSE, SANDBOX, Frame
from martlet.sandbox.cgroups import Group, Limits
from martlet.sandbox.engine import Engine
from martlet.sandbox.hierarchies import find_everywhere, name_in_trees, usable_group
from martlet.sandbox.inside import Task
from martlet.sandbox.keeper import Plan
from martlet.sandbox.launcher import Confinement

_ENGINE_SECONDS = 10.0
"""What an engine may take to start a container, whose first process begins then."""
_MOUNTS = Path("/proc/self/mountinfo")
_PROMISE = "functions with execution_mode: container run, each in a container of its own"
_IMAGES, _OF_IMAGES = "_images", "_of_images"
"""The keeper of functions that are images, and what these are shown; no runtime is called like this."""
_OF_PAGES = "static"
_DOOR = "door"
_CAN_WAIT = pause.program() is not None
_TURNS = 2 * (os.cpu_count() or 1)
"""Containers that start at once: to start one is work, of which more at once is none the sooner done."""


class ContainerDriver(LocalDriver[Keeper]):
    """See the module.

    Args:
        engine: what starts containers.
        lane: as all that is not named here, for `LocalDriver`.
        roots: what containers see as ``/``; by default the system folders of this machine.
        images: the folder of those that functions may be; None: there are none.
        labels: what AppArmor or SELinux is to confine containers by.

    Attributes:
        label: what confined the container that `probe` started, besides.
    """

    name = "container"
    _parents_of = Keeper
    _further_parents = (_IMAGES,)

    def __init__(
        self,
        engine: Engine,
        lane: int,
        packages: Path,
        run: Path,
        *,
        roots: Roots | None = None,
        images: Path | None = None,
        labels: Labels = NO_LABELS,
        egress: Egress | None = None,
        allow_host_network: bool = False,
        max_body: int = 20 * MiB,
        runtimes: Catalogue | None = None,
        lease: float = LEASE,
    ) -> None:
        super().__init__(
            lane,
            packages,
            run,
            identities=Identities.of_containers(lane),
            isolation="strict",
            egress=egress,
            allow_host_network=allow_host_network,
            max_body=max_body,
            runtimes=runtimes,
            lease=lease,
        )
        self._engine = engine
        self._labels = labels
        self.label = ""
        self._turns = asyncio.Semaphore(_TURNS)
        self._folder = self._run / "containers"
        self._resolvers = Resolvers.find().text
        self._roots = roots or HostRoots(self._folder / "roots", self._resolvers)
        self._usual_limits = self._limits_of(FunctionConfig())
        if images is not None:
            self._own_images = OwnImages(
                images,
                self._folder / _OF_IMAGES,
                f"lane-{lane}",
                own_kernel=engine.own_kernel,
                labels=labels,
            )

    def probe(self) -> list[Guarantee]:
        """Returns whether this machine runs containers, by starting one that is thrown away."""
        name, remedy = self._engine.name, f"install {self._engine.name}, or choose another container_runtime"
        if shutil.which(name) is None:
            why = f"there is no program {name}"
        elif os.geteuid() != 0:
            why, remedy = f"{name} takes root here", "run Martlet as root, or set container_runtime to podman"
        else:
            try:
                with ThreadPoolExecutor(max_workers=1) as thread:  # the caller may have an event loop already
                    thread.submit(self._rehearse).result()
            except (DriverError, OSError) as error:
                why = f"{name} starts no container: {error}"
                remedy = f"repair {name}, or choose another container_runtime"
            else:
                return [Guarantee("containers", _PROMISE, State.HELD, f"by {name}")]
        return [Guarantee("containers", _PROMISE, State.MISSING, why, remedy)]

    def _rehearse(self) -> None:
        self._run.mkdir(parents=True, exist_ok=True)  # and not where TMPDIR says: sockets have short paths
        with TemporaryDirectory(dir=self._run) as folder:
            run = Path(folder, "run")
            with self._page() as page:
                runtime = FunctionConfig().runtime if page is None else _OF_PAGES
                cell = CellSpec("throw-away", runtime, Network.NONE, run / "cell")
                cell.directory.mkdir(parents=True)
                asyncio.run(self._throw_away(run, cell, page))

    @contextmanager
    def _page(self) -> Iterator[Path | None]:
        """Lends a package that lies where all do, for SELinux may let a container start and see nothing there."""
        if not self._labels.process:
            yield None
            return
        self._packages.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".throw-away-", dir=self._packages) as folder:
            Path(folder).chmod(0o755)
            Path(folder, "index.html").write_text("seen")
            yield Path(folder)

    async def _throw_away(self, run: Path, cell: CellSpec, page: Path | None) -> None:
        driver = ContainerDriver(
            self._engine, self._lane, self._packages, run, runtimes=self._runtimes, labels=self._labels
        )
        await driver.open(lambda *_: None)
        try:
            handle = await driver.start(cell)
            assert handle.pid is not None
            self.label = in_force(handle.pid)
            if page is not None:
                config = FunctionConfig(runtime=cell.runtime)
                revision = Revision(function=cell.id, number=1, config=config, code="0" * 64, created=0.0)
                await driver.specialise(handle, revision, page, None, START_SECONDS)
        finally:
            await driver.close()

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a container; returns once it answers for its health. Many at once wait for their turns."""
        async with self._turns:
            return await super().start(spec)

    async def close(self) -> None:
        """Destroys every container, then the keepers and the lane's cgroup."""
        await super().close()
        await self._empty_trees()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def sweep(self) -> None:
        """Ends the containers that nobody has recovered, and what is left of their cgroups in every tree."""
        await super().sweep()
        if not self._parents:
            await self._empty_trees()

    async def _end(self, cell: Cell) -> None:
        await super()._end(cell)
        if isinstance(cell.parent, Keeper) and not cell.parent.alive:  # which would have done it
            await self._empty_trees(cell.id)

    async def _empty_trees(self, below: str = "") -> None:
        """Removes the lane's cgroup, or one below, also from trees that limit nothing, where the engine makes it."""
        if self._group is not None and self._engine.makes_cgroups:
            mounts = await asyncio.to_thread(_MOUNTS.read_text)
            name = name_in_trees(self._group.directories, mounts)
            await empty(find_everywhere(mounts).below(f"{name}/{below}"))

    async def _begin(self) -> Group | None:
        group = usable_group()
        if group is None:
            raise DriverError("containers need a cgroup to make theirs in: run Martlet as root")
        return group

    async def _parent_of(self, cell: Cell) -> Keeper:
        if cell.image is None:
            return await super()._parent_of(cell)
        return await self._parent(_IMAGES, self._start_keeper_of_images)

    def _name_of_parent(self, handle: Handle) -> str:
        return _IMAGES if "image" in handle.state else super()._name_of_parent(handle)

    async def _frame_of_image(self, cell: str, image: str) -> Frame:
        images = self._own_images
        if images is None:
            raise LoadFailed("NoImages", "this lane has no images")
        making = asyncio.ensure_future(asyncio.to_thread(lambda: images.frame(images.take(cell, image))))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(lambda _: images.let_go(cell))
            raise

    async def _start_cell(self, parent: Keeper, cell: Cell, network: Network) -> None:
        frame = None if cell.image is None else await self._frame_of_image(cell.id, cell.image)
        door.make(cell.directory / _DOOR, cell.identity)
        with cell.belongings() as descriptors:
            cell.limit(self._usual_limits)
            try:
                cell.pid = await self._launch(parent, cell, network, descriptors, frame)
                return
            except DriverError:
                if not parent.rootless:
                    raise
            cell.parent = parent = await self._replace(parent, cell)
            cell.pid = await self._launch(parent, cell, network, descriptors, frame)

    async def _launch(
        self, parent: Keeper, cell: Cell, network: Network, descriptors: Sequence[int], frame: Frame | None
    ) -> int:
        shared = cell.directory / _DOOR
        try:
            async with asyncio.timeout(_ENGINE_SECONDS):
                return await parent.launch(cell.id, network, cell.identity, shared, descriptors, frame)
        except TimeoutError:
            raise DriverError(
                f"{self._engine.name} has not started a container within {_ENGINE_SECONDS:g} s"
            ) from None

    async def _replace(self, parent: Keeper, cell: Cell) -> Keeper:
        """Returns the next keeper of a runtime whose root is gone, with its containers, once there is another root."""
        await self._roots.of(self._runtimes.resolve(cell.runtime))
        await parent.close()
        return await self._parent_of(cell)

    async def _greet(self, cell: Cell) -> None:
        cell.conversation = await door.greet(
            cell.directory / _DOOR, cell.socket, START_SECONDS, cell.ended.done
        )

    async def _equip(
        self, cell: Cell, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        assert isinstance(cell.parent, Keeper)
        await cell.parent.show(
            cell.id,
            code=confinement.code,
            dependencies=confinement.dependencies,
            hostname=confinement.hostname,
            scratch=confinement.scratch,
        )
        return self._document(cell, revision, confinement, template=template)

    def _limits_of(self, config: FunctionConfig) -> Limits:
        limits = super()._limits_of(config)
        return Limits(
            limits.memory + self._engine.memory, limits.cpu, limits.processes + self._engine.processes
        )

    async def _start_parent(self, runtime: Runtime, at: Path) -> Keeper:
        seen = await self._roots.of(runtime)
        try:
            startup = Startup.of(seen.runtime, confined=True)
        except Invalid as error:
            raise DriverError(error.detail) from None
        # What the keeper has loaded must be what the container sees, and its kernel the one that the keeper has. The
        # warden of a program has the same user, and must be the first process, which nobody inside can end. What
        # enters a container does not get its label.
        alike = not self._engine.own_kernel and seen.shows(PREFIX)
        entered = _CAN_WAIT and startup.program is None and alike and not self._labels
        module_folder = str(startup.module_folder) if entered else startup.seen_folder
        task = Task(startup.module, module_folder, startup.program, self._engine.own_kernel)
        frame = frame_of(seen, task, self._labels)
        if entered:
            frame = replace(frame, command=[f"{SANDBOX}/{PAUSE}"])
        return await self._start_keeper(runtime.name, frame, task if entered else None, at, seen.hold)

    async def _start_keeper_of_images(self, at: Path) -> Keeper:
        return await self._start_keeper(_IMAGES, None, None, at)

    async def _start_keeper(
        self, name: str, frame: Frame | None, task: Task | None, at: Path, hold: int | None = None
    ) -> Keeper:
        program = shutil.which(self._engine.name)
        if program is None:
            raise DriverError(f"{self._engine.name} is not on this machine any more")
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        assert self._group is not None
        plan = Plan(
            engine=self._engine,
            program=program,
            frame=frame,
            task=task,
            folder=str(folder),
            packages=str(self._packages),
            resolvers=self._resolvers,
            groups=self._group.directories,
            lease=self._lease,
            hold=hold,
        )
        inherited = [] if hold is None else [hold]
        return await Keeper.start(at, INTERPRETER, plan, self._ended, inherited)
