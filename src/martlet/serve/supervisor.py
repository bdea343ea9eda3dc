"""The process that starts control and the lanes, starts them anew when they die, and stops them all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TextIO

import structlog

from martlet.cluster.identity import Identity
from martlet.control.machine import Machine
from martlet.control.membership import Membership
from martlet.drivers import engines
from martlet.drivers.driver import DriverError, explain, require
from martlet.drivers.host import inspect
from martlet.drivers.microvm import what_is_missing
from martlet.drivers.networks import Networks
from martlet.errors import MartletError, Unavailable
from martlet.http.fetch import FetchError, fetch
from martlet.model import Role
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE
from martlet.runtimes import INTERPRETER, Catalogue
from martlet.sandbox import moves
from martlet.serve import orphans, remains, run_directory
from martlet.serve.forkserver import Forked, Forkserver, Unforked
from martlet.settings import Settings
from martlet.storage.blobs import Blobs
from martlet.storage.log_shelf import LogShelf
from martlet.storage.opening import open_store
from martlet.storage.registry import Registry
from martlet.storage.store import Store, StoreError
from martlet.store_address import PASSWORD_VARIABLE
from martlet.telemetry.logging import configure

log = structlog.get_logger()

START_TIMEOUT = 60.0
PASSWORDS = frozenset({PASSWORD_VARIABLE, QUEUE_PASSWORD_VARIABLE})
"""Variables that other processes of the platform have no use for: the settings say it."""
TELL_TIMEOUT = 2.0
STOP_TIMEOUT = 15.0
QUICK_DEATH = 5.0
"""A process that died within this many seconds is started anew with a growing delay."""
LONGEST_DELAY = 5.0
ORPHANS_EVERY = 1.0


class Busy(MartletError):
    """The platform cannot start because something else has what it needs."""

    code, title = "busy", "Something else has what the platform needs"


class NotIsolated(MartletError):
    """The platform does not start because functions would not be isolated as it promises."""

    code, title = "not_isolated", "This machine does not let functions run isolated"


class Intruded(MartletError):
    """The platform does not start because somebody else could reach into it."""

    code, title = "intruded", "Somebody else could reach into the platform"


def serve(settings: Settings, announce: Callable[[Settings], None] | None = None) -> int:
    """Runs the platform in the foreground until SIGINT or SIGTERM.

    Args:
        settings: validated settings; port 0 is replaced by a free one.
        announce: called with the final settings once everything is ready.

    Returns:
        The exit code: 0 after a stop that was asked for, 1 when the platform did not come up.

    Raises:
        Busy: the port or the data folder is in use.
        NotIsolated: a guarantee of the sandbox is not held, and the settings say strict.
        Intruded: the folder of sockets belongs to another user.
        Unavailable: the store is out of reach, or refuses the platform.
        Invalid: this machine cannot give functions the network, or has not the engine or the file, that the settings
            name.
    """
    configure(settings.system.logging_level, settings.system.logging_format)
    return asyncio.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Callable[[Settings], None] | None) -> int:
    settings = await asyncio.to_thread(_settle_network, settings)
    if _runs_code(settings):
        await asyncio.to_thread(_look_at_sandbox, settings)
    if settings.system.quick_cgroups and os.geteuid() == 0:
        log.info("cgroups", quick=moves.quicken())
    data = settings.system.function_storage_path
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _lock(data)
    settings_file = settings.run_directory / remains.SETTINGS_FILE
    await remains.sweep(settings.run_directory, settings_file)
    orphans.take_in()
    forkserver = Forkserver(_environment(settings_file))
    try:
        await forkserver.start()  # it imports while this process looks at the machine
        store = await _open_store(settings)
        try:
            return await _run(settings, store, forkserver, announce)
        finally:
            await store.close()
    finally:
        await forkserver.close()
        await remains.sweep(settings.run_directory, settings_file)
        lock.close()


async def _run(
    settings: Settings,
    store: Store,
    forkserver: Forkserver,
    announce: Callable[[Settings], None] | None,
) -> int:
    data, run = settings.system.function_storage_path, settings.run_directory
    Blobs.of(settings.system.blobs, data / "blobs")  # says now what control and the lanes could not use
    if settings.system.log_store is not None:
        LogShelf.of(settings.system.log_store)
    if settings.system.clustered:
        Identity(data).check()
    catalogue = await asyncio.to_thread(_look_at_runtimes, settings)
    if _runs_code(settings):
        settings = await asyncio.to_thread(_settle_engine, settings, catalogue)
        settings = await asyncio.to_thread(_settle_microvms, settings)
    placeholders, settings = _reserve_ports(settings)
    _make_run_directory(run)
    settings_file = run / remains.SETTINGS_FILE
    settings_file.touch(0o600)
    settings_file.write_text(settings.reveal())
    lanes = [Child(forkserver, "lane", number) for number in range(settings.lane_count)]
    control = [Child(forkserver, "control", 0)] if _has_control(settings) else []
    children = [*control, *lanes]
    machine = Machine(settings, [run / f"{lane.name}.sock" for lane in lanes], catalogue)
    membership = Membership(Registry(store), machine.node)
    stop, at_once = asyncio.Event(), asyncio.Event()

    def interrupt() -> None:
        stop.set()
        at_once.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    keepers = [asyncio.create_task(child.keep()) for child in children]
    keepers.append(asyncio.create_task(_bury_orphans(forkserver, children)))
    try:
        ready = asyncio.create_task(_ready(settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([ready, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
        elif ready.exception() is not None:
            log.error("not_ready", error=str(ready.exception()))
            return 1
        else:
            membership.open()
            if announce is not None:
                announce(settings)
            await stopping
            if settings.system.clustered:
                await _take_leave(machine, membership, settings, at_once)
        return 0
    finally:
        for keeper in keepers:
            keeper.cancel()
        grace = settings.system.drain_timeout if machine.stopping and not at_once.is_set() else 0.0
        # What others have sent here is theirs while this machine is on the list: it leaves that last.
        await asyncio.gather(*(child.stop(grace) for child in children))
        await membership.close()
        for placeholder in placeholders:
            placeholder.close()


async def _take_leave(
    machine: Machine, membership: Membership, settings: Settings, at_once: asyncio.Event
) -> None:
    """Lets everybody know that this machine will be gone, while it still takes requests.

    Args:
        machine: this one.
        membership: of this one.
        settings: of the platform.
        at_once: set by whoever does not want to wait.
    """
    machine.stopping = True
    if not at_once.is_set():
        sockets = (settings.run_directory / f"lane-{number}.sock" for number in range(settings.lane_count))
        telling = (fetch(socket, "POST", "/_node/leave", timeout=TELL_TIMEOUT) for socket in sockets)
        await asyncio.gather(*telling, return_exceptions=True)  # a lane that is being started has no requests
    try:
        await membership.announce()
    except (StoreError, TimeoutError) as error:
        log.warning("others_not_told", error=str(error))
    log.info("stopping", notice=settings.system.stop_notice)
    with suppress(TimeoutError):
        await asyncio.wait_for(at_once.wait(), settings.system.stop_notice)


class Child:
    """One process of the platform.

    Attributes:
        starting: it is being forked, and ``pid`` not yet what it will be.
    """

    def __init__(self, forkserver: Forkserver, role: str, number: int) -> None:
        self.name = role if role == "control" else f"lane-{number}"
        self._forkserver = forkserver
        self._role, self._number = role, number
        self._process: Forked | None = None
        self.starting = False

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started for the first time."""
        return None if self._process is None else self._process.pid

    async def keep(self) -> None:
        """Starts the process, and again whenever it ends; runs until cancelled."""
        delay = 0.0
        while True:
            await asyncio.sleep(delay)
            began = monotonic()
            try:
                code = await self._life()
                log.error("process_ended", name=self.name, code=code)
            except Unforked as error:
                log.error("process_not_started", name=self.name, error=str(error))
            quick = monotonic() - began < QUICK_DEATH
            delay = min(max(0.1, delay * 2), LONGEST_DELAY) if quick else 0.0

    async def _life(self) -> int:
        self.starting = True
        try:
            self._process = await self._forkserver.fork(self._role, self._number)
        finally:
            self.starting = False
        return await self._process.wait()

    async def stop(self, grace: float) -> None:
        """Asks the process to end, and kills it where it does not for `STOP_TIMEOUT` and ``grace`` seconds."""
        if self._process is None:
            return
        self._process.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT + grace)
        except TimeoutError:
            log.error("process_killed", name=self.name)
            self._process.send(signal.SIGKILL)
            await self._process.wait()


async def _bury_orphans(forkserver: Forkserver, children: list[Child]) -> None:
    while True:
        await asyncio.sleep(ORPHANS_EVERY)
        if not any(child.starting for child in children):
            orphans.bury({forkserver.pid, *(child.pid for child in children)})


def _environment(settings_file: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name not in PASSWORDS},
        remains.SETTINGS_VARIABLE: str(settings_file),
        remains.PARENT_VARIABLE: str(os.getpid()),
    }


async def _ready(settings: Settings) -> None:
    """Returns once every process answers. Raises `Unavailable` if they do not in time."""
    run = settings.run_directory
    sockets = [(run / "control.sock", "/ready")] if _has_control(settings) else []
    sockets += [(run / f"lane-{number}.sock", "/_node/health") for number in range(settings.lane_count)]
    deadline = monotonic() + START_TIMEOUT
    for path, target in sockets:
        while True:
            try:
                status, _ = await fetch(path, "GET", target, timeout=2.0)
                if status == 200:
                    break
            except FetchError:
                pass
            if monotonic() > deadline:
                raise Unavailable(
                    f"{path.stem} was not ready within {START_TIMEOUT:g} s; its log above says why"
                )
            await asyncio.sleep(0.02)


def _settle_network(settings: Settings) -> Settings:
    """Returns the settings with the network that functions get which name none. Raises `Invalid`."""
    default = Networks.of(settings.system).default
    system = settings.system.model_copy(update={"default_network": default})
    return settings.model_copy(update={"system": system})


def _look_at_sandbox(settings: Settings) -> None:
    """Refuses to go on where a guarantee is not held (strict), or says what functions must do without (relaxed)."""
    guarantees = inspect(INTERPRETER, settings.lane_count - 1).guarantees
    if settings.system.process_isolation_level == "strict":
        try:
            require(guarantees)
        except DriverError as error:
            raise NotIsolated(str(error), field="system.process_isolation_level") from None
    for sentence in explain(guarantees):
        log.warning("guarantee_not_held", detail=sentence)


def _runs_code(settings: Settings) -> bool:
    """Whether people's code runs on this machine: functions, or builds."""
    return not {Role.NODE, Role.BUILDER}.isdisjoint(settings.system.roles)


def _has_control(settings: Settings) -> bool:
    """Whether there is a process of control: it builds, too, and does so only where it does not manage."""
    return not {Role.CONTROL, Role.BUILDER}.isdisjoint(settings.system.roles)


async def _open_store(settings: Settings) -> Store:
    """Refuses to go on without the store: its processes would end for the same reason, one after the other."""
    system = settings.system
    try:
        return await open_store(system.store, system.function_storage_path)
    except StoreError as error:
        raise Unavailable(
            f"the store {system.store} cannot be used: {error}", field="system.store"
        ) from error


def _look_at_runtimes(settings: Settings) -> Catalogue:
    """Finds the toolchains once for all: control and the lanes then read what their programs have answered."""
    catalogue = Catalogue.of(settings.system)
    found = [runtime.name for runtime in catalogue.available()]
    log.info("runtimes", found=found, absent=[absent.name for absent in catalogue.absent()])
    return catalogue


def _settle_engine(settings: Settings, catalogue: Catalogue) -> Settings:
    """Returns the settings with the engine that starts containers here; without containers where none does.

    Raises:
        Invalid: they name one that does not.
    """
    choice = engines.choose(settings.system, settings.run_directory, catalogue)
    if choice.engine is not None:
        update: dict[str, object] = {
            "container_runtime": choice.engine,
            "container_label": choice.label,
        }
        log.info("containers", engine=choice.engine, label=choice.label)
    else:
        update = {"disable_container": True}
        log.info("no_containers", tried=[each.why for each in choice.guarantees])
    return settings.model_copy(update={"system": settings.system.model_copy(update=update)})


def _settle_microvms(settings: Settings) -> Settings:
    """Returns the settings without microVMs where this machine lacks something for them."""
    if settings.system.disable_microvm or (missing := what_is_missing()) is None:
        return settings
    log.info("no_microvms", why=missing.why, remedy=missing.remedy)
    return settings.model_copy(
        update={"system": settings.system.model_copy(update={"disable_microvm": True})}
    )


def _make_run_directory(run: Path) -> None:
    """Makes the directory, in one that nobody else can change: in /tmp somebody may have been there before."""
    run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = run.parent.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Intruded(f"{run.parent} must belong to the user of the platform, and to nobody else: remove it")
    run_directory.make(run)


def _lock(data: Path) -> TextIO:
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Busy(
            f"another Martlet runs on {data}: stop it, or use another folder (--data)",
            field="system.function_storage_path",
        ) from None
    return lock


def _reserve_ports(settings: Settings) -> tuple[list[socket.socket], Settings]:
    """Finds out whether the ports are free, holds them for the lanes, and returns the settings with what is settled."""
    system, peer = settings.system, settings.system.peer_address
    port, placeholders = system.api_gateway_port, []
    if Role.GATEWAY in system.roles:
        port, placeholder = _reserve(system.host, port, "system.api_gateway_port", "--port or --host")
        placeholders.append(placeholder)
    if peer is not None:
        placeholders.append(_reserve(peer.host, peer.port, "system.peer_address", "system.peer_address")[1])
    # Lanes are counted here once: a lane that is kept on one core sees only that one.
    update = {"api_gateway_port": port, "lanes": settings.lane_count}
    return placeholders, settings.model_copy(update={"system": system.model_copy(update=update)})


def _reserve(host: str, port: int, field: str, remedy: str) -> tuple[int, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
        placeholder = socket.socket(family)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        placeholder.bind((host, port))
    except OSError as error:
        raise Busy(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {remedy}", field=field
        ) from None
    return port, placeholder
