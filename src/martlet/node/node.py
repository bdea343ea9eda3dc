"""What owns instances: the pools of one lane, and their drivers and cells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

import structlog

from martlet.drivers.driver import (
    CellSpec,
    Driver,
    Handle,
    Weighing,
)
from martlet.errors import (
    FunctionLoadFailed,
    FunctionNotFound,
    MartletError,
    NoCapacity,
    NotFound,
)
from martlet.model import InstanceView, Network, NodeScaling, Revision, ScalingAction
from martlet.node.adoption import Adoption
from martlet.node.allowance import Allowance
from martlet.node.call import Call
from martlet.node.clock import TICK, Clock
from martlet.node.core import Core
from martlet.node.habit import Habits
from martlet.node.homes import Homes
from martlet.node.housekeeping import Housekeeping
from martlet.node.instance import Instance
from martlet.node.lines import Line
from martlet.node.logs import LogReader, LogStore
from martlet.node.packages import PackageCache
from martlet.node.places import Places
from martlet.node.pointers import Pointers
from martlet.node.pool import Pool
from martlet.node.portion import Portion
from martlet.node.recorder import Recorder
from martlet.node.room import Room
from martlet.node.scaling import explain
from martlet.node.starter import Starter
from martlet.node.stocks import Resolve, Stocks
from martlet.node.template import Template
from martlet.node.withdrawal import Withdrawal
from martlet.settings import SystemSettings
from martlet.storage.registry import RegistryView
from martlet.telemetry.process import ProcessStats

log = structlog.get_logger()

LAST_WORDS, LONGEST_WORD = 20, 500
"""Lines of what did not load that its deploy shows, and characters of each."""
IDENTIFY_SECONDS = 0.1
"""Seconds that who looks at the instances waits for the ids of processes that are not known yet."""
GRACE = 2.0
"""Seconds an idle instance may take to end by itself."""


class Node:
    """See the module.

    Attributes:
        templates: those that live, by the id of their sandbox.
        clock: what watches deadlines and waiting calls.
        core: what the instances run on.
        portion: what this machine may have of the instances of each revision.
        stocks: cells that stand ready.
        starter: what makes them instances.
        pointers: which revisions requests go to.
        room: for how many instances.
        habits: how the functions are used.
        refer: where calls go that another lane is to run.
        pass_on: whether a call that was not begun here, because of an error, is somebody else's now.
        withdrawal: whether others get the work of this machine.
    """

    def __init__(
        self,
        *,
        lane: int,
        lanes: int,
        settings: SystemSettings,
        run: Path,
        view: RegistryView,
        drivers: Mapping[str, Driver],
        packages: PackageCache,
        logs: LogStore,
        recorder: Recorder,
        runtimes: Resolve,
        withdrawal: Withdrawal,
        own: str | None = None,
    ) -> None:
        self.lane = lane
        self.lanes = lanes
        self.name = f"lane-{lane}"
        self.settings = settings
        self.drivers = drivers
        # Found out once: to ask whether something keeps a protocol takes longer than much of a cold start.
        self._weighing = {name: each for name, each in drivers.items() if isinstance(each, Weighing)}
        self.packages = packages
        self.logs = logs
        self.pools: dict[str, Pool] = {}
        self.instances: dict[str, Instance] = {}
        self.templates: dict[str, Template] = {}
        self.clock = Clock()
        self.core = Core()
        self.portion = Portion(view, own, withdrawal)
        self._homes = None if lanes == 1 or settings.keep_alive == "learned" else Homes(lane, run)
        self.allowance = Allowance(
            lane,
            lanes,
            lambda n: run / f"lane-{n}.sock",
            self._own,
            self._held,
            self.portion.most,
            self._homes,
        )
        self.refer: Callable[[Call], None] = lambda call: call.fail(NoCapacity())
        self.pass_on: Callable[[Call, MartletError], bool] = lambda _call, _error: False
        self.count_connections: Callable[[], int] = lambda: 0
        self.count_asked: Callable[[], dict[str, float]] = dict
        self._places = Places(lane, run / self.name, drivers, self.spawn)
        self._view = view
        self.withdrawal = withdrawal
        self.recorder = recorder
        self.habits = Habits(settings.function_storage_path / f"habits-{lane}.json")
        self.stocks = Stocks(settings, drivers, runtimes, self._make_cell)
        self.starter = Starter(self, packages)
        self.pointers = Pointers(view)
        self._housekeeping = Housekeeping(self, view)
        self._adoption = Adoption(self, view, run / self.name)
        self._readers: dict[str, LogReader] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.room = Room(self, -(-settings.max_concurrent_functions // lanes) if drivers else 0)
        view.on_change.append(self._changed)

    # -- life

    async def open(self) -> None:
        """Opens the drivers, takes over what an earlier life of the lane has left, and begins to make cells."""
        for driver in self.drivers.values():
            await driver.open(self._exited)
        self.habits.load(self._view.functions)
        await self._adoption.run()
        for name in await self.logs.functions():
            if name not in self._view.functions:  # it was deleted while nobody was here
                self.spawn(self.forget(name))
        self.keep_cells()
        self.spawn(self._housekeeping.run())

    async def close(self) -> None:
        """Destroys every cell and instance."""
        self._places.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.habits.save()
        await self.stocks.close()
        await asyncio.gather(*(driver.close() for driver in self.drivers.values()))
        for reader in self._readers.values():
            reader.close()
        await self.allowance.close()
        if self._homes is not None:
            self._homes.close()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs ``work`` beside everything else; what it raises unexpectedly is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", exc_info=error)

    # -- pools

    def pool(self, revision: Revision) -> Pool:
        """Returns the pool of a revision, made where there is none."""
        pool = self.pools.get(revision.id)
        if pool is None:
            pool = self.pools[revision.id] = Pool(self, revision, self.refer)
        return pool

    def refuse(self, call: Call, error: MartletError) -> None:
        """Answers a call that no instance has had, and counts that."""
        self.recorder.stats.refuse(error.code)
        call.fail(error)

    def driver_of(self, handle: Handle) -> Driver:
        """Returns the driver that made a handle."""
        return self.drivers[handle.driver]

    def weighing(self, handle: Handle) -> Weighing | None:
        """Returns the driver that made a handle, where it can let instances give way."""
        return self._weighing.get(handle.driver)

    def keep_cells(self) -> None:
        """Keeps cells ready for the functions that there are; none where others get the work."""
        if self.withdrawal.begun:
            self.stocks.empty()
            return
        latest = [(function.name, function.latest) for function in self._view.functions.values()]
        self.stocks.keep(self._view.revisions[each].config for each in latest if each in self._view.revisions)

    def _own(self, revision: str) -> tuple[int, int]:
        pool = self.pools.get(revision)
        return (pool.held - pool.asking, len(pool.idle)) if pool is not None else (0, 0)

    def _held(self) -> dict[str, int]:
        held = {name: pool.held - pool.asking for name, pool in self.pools.items()}
        return {name: count for name, count in held.items() if count}

    @property
    def busy(self) -> bool:
        """Whether it runs a call, or one waits for an instance."""
        return any(pool.waiting for pool in self.pools.values()) or any(
            instance.calls for instance in self.instances.values()
        )

    # -- instances

    async def launch(self, pool: Pool) -> Instance:
        """Starts an instance of a pool's revision, without slots yet.

        Raises:
            LoadFailed: the user's code does not load.
            NoCapacity: the lane is full, or the host refuses another sandbox.
        """
        self.room.make()
        began = monotonic()
        forked = await pool.template.fork()
        cell, loaded, conversation = forked or await self.starter.specialise(pool.revision)
        instance = Instance(pool, cell, loaded, monotonic() - began, conversation)
        self.instances[cell.id] = instance
        if forked is None:  # a fork ends with its template, which ends with this lane
            self.spawn(self._adoption.note_down(instance))
        return instance

    def read_log(self, handle: Handle, revision: Revision) -> None:
        """Begins to read what an instance of a revision prints. Raises OSError."""

        def request_id() -> str | None:
            instance = self.instances.get(handle.id)
            return None if instance is None else instance.request_id

        self._readers[handle.id] = LogReader(handle.log, revision, handle.id, self.logs, request_id)

    def conclude(self, handle: Handle, error: MartletError, request_id: str | None) -> None:
        """Lets the log of an instance that is to be buried say why, behind all that it has printed."""
        reader = self._readers.get(handle.id)
        if reader is not None:
            reader.conclude(Line(time(), request_id, "error", error.detail))

    async def bury(self, instance: Instance) -> None:
        """Ends an instance that has left its pool: one that nothing is wrong with ends by itself, within `GRACE`."""
        if instance.lost_to is None:
            await self.driver_of(instance.handle).stop(instance.handle, GRACE)
        await self.destroy(instance.handle)

    async def stop(self, instance_id: str) -> None:
        """Ends an instance on request, after the calls it runs. Raises `NotFound`."""
        instance = self.instances.get(instance_id)
        if instance is None or instance.dead:
            raise NotFound(f"there is no instance {instance_id!r} here")
        pool = instance.pool
        pool.idle = [slot for slot in pool.idle if slot.instance is not instance]
        deadline = monotonic() + pool.config.timeout
        while instance.calls and monotonic() < deadline:
            await asyncio.sleep(TICK)
            pool.idle = [slot for slot in pool.idle if slot.instance is not instance]
        instance.end()
        pool.note(ScalingAction.END, "it was stopped on request")

    def packages_in_use(self) -> set[str]:
        """Returns the digests of what living instances and templates have mounted."""
        users: list[Instance | Template] = [*self.instances.values(), *self.templates.values()]
        revisions = [user.pool.revision for user in users]
        return {digest for one in revisions for digest in (one.code, one.dependencies) if digest}

    async def identify(self, instance: Instance) -> None:
        """Completes the handle of an instance, once its driver knows the process. Raises `DriverError`."""
        instance.handle = await self.driver_of(instance.handle).identify(instance.handle)

    async def views(self) -> list[InstanceView]:
        """Returns the living instances, with what memory each uses."""
        unknown = [one for one in self.instances.values() if one.handle.pid is None and not one.dead]
        with suppress(TimeoutError):
            async with asyncio.timeout(IDENTIFY_SECONDS):
                await asyncio.gather(*map(self.identify, unknown), return_exceptions=True)
        views = []
        for instance in list(self.instances.values()):
            if not instance.dead:
                stats = await self.driver_of(instance.handle).stats(instance.handle)
                views.append(instance.view(stats.memory_bytes if stats else None))
        return views

    async def load(self, revision: Revision) -> dict[str, Any]:
        """Starts an instance of a revision that nothing points at yet, and keeps it for the first request.

        Returns:
            How the handler is run (``mode``), and what loading and the whole start took (``load_ms``, ``start_ms``).

        Raises:
            FunctionLoadFailed: the code does not load; its ``extra`` has the exception, the traceback and the log.
            NoCapacity: there is no room to try.
        """
        pool = self.pool(revision)
        if pool.revision != revision:  # of a deploy that failed: a function that never was starts again at 1
            self.drop(pool)
            pool = self.pool(revision)
        instance = next(iter(pool.instances), None)
        if instance is None:
            pool.starting += 1
            self.allowance.home(revision.id)  # nobody else is to be, from here on
            began = time()
            try:
                instance = await pool.add_instance()
            except FunctionLoadFailed as error:
                lines = await self.logs.read(revision.function, LAST_WORDS, began)
                error.extra["log"] = [line.message[:LONGEST_WORD] for line in lines]
                raise
            self.allowance.changed()
        loaded = instance.loaded
        return {"mode": loaded.mode, "load_ms": loaded.load_ms, "start_ms": instance.start_seconds * 1e3}

    def stats(self) -> dict[str, Any]:
        """Returns the counters of this lane, with what it holds now (see `LaneStats.to_json`)."""
        stats = self.recorder.stats
        stats.connections = self.count_connections()
        stats.instances = {}
        for instance in self.instances.values():
            states = stats.instances.setdefault(instance.pool.revision.function, {})
            states[instance.state.value] = states.get(instance.state.value, 0) + 1
        stats.waiting = {}
        for pool in self.pools.values():
            function = pool.revision.function
            stats.waiting[function] = stats.waiting.get(function, 0) + len(pool.waiting)
        stats.cells = self.stocks.count()
        stats.processes = {self.name: ProcessStats.measure()}
        return stats.to_json()

    def scaling(self, function: str) -> NodeScaling:
        """Returns why there are as many instances of a function as there are. Raises `FunctionNotFound`."""
        revision = self.pointers.latest(function)
        if revision is None:
            raise FunctionNotFound(f"there is no function {function!r}")
        return explain(self, function, revision.config)

    async def forget(self, function: str) -> None:
        """Drops the logs, history and counters of a deleted function."""
        self.habits.forget(function)
        self.recorder.stats.forget(function)  # at once: it may be made anew
        await self.logs.forget(function)
        await self.recorder.history.forget(function)

    async def _make_cell(
        self, driver: Driver, runtime: str, network: Network, image: str | None, urgent: bool
    ) -> Handle:
        cell, directory = self._places.take(driver.name) if urgent else self._places.new()
        return await driver.start(CellSpec(cell, runtime, network, directory, image, urgent))

    def new_spec(self, runtime: str, network: Network) -> CellSpec:
        """Returns what to start next: it has a new id and a directory."""
        cell, directory = self._places.new()
        return CellSpec(cell, runtime, network, directory)

    async def destroy(self, handle: Handle) -> None:
        """Ends a sandbox and removes all of it."""
        self.instances.pop(handle.id, None)
        await self.driver_of(handle).destroy(handle)
        reader = self._readers.pop(handle.id, None)
        if reader is not None:
            reader.close()

    def _exited(self, cell_id: str, code: int) -> None:
        """A sandbox has ended by itself."""
        cell = self.stocks.drop(cell_id)
        if cell is not None:
            self.spawn(self.destroy(cell))
            return
        if cell_id in self.templates:
            self.templates[cell_id].lost()
            return
        instance = self.instances.get(cell_id)
        if instance is not None:
            if not instance.exit_code.done():
                instance.exit_code.set_result(code)
            if not instance.calls and not instance.dead:
                instance.end()
                instance.pool.note(ScalingAction.END, "it ended by itself while it was idle")

    # -- the store

    def _changed(self, kind: str, name: str) -> None:
        """The store has news of a function: pools that nothing points at any more retire."""
        if kind == "key":
            return
        function = self._view.functions.get(name)
        if function is None and kind != "function":
            return  # a first deploy: its revision is there before the function that points at it
        for pool in [pool for pool in self.pools.values() if pool.revision.function == name]:
            if self.pointers.is_replaced(pool.revision):
                self.drop(pool)
        if function is None:  # control of another machine does not say so
            self.spawn(self.forget(name))

    def drop(self, pool: Pool) -> None:
        """Takes no new calls into a pool."""
        self.pools.pop(pool.revision.id, None)
        self.allowance.forget(pool.revision.id)
        self._housekeeping.retire(pool)
