"""The process that starts control and the lanes, starts them anew when they die, and stops them all."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

import structlog

from martlet.cluster.identity import Identity
from martlet.control.machine import Machine
from martlet.control.membership import Membership
from martlet.errors import Unavailable
from martlet.http.fetch import FetchError, fetch
from martlet.model import Role
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE
from martlet.sandbox import moves
from martlet.serve import claims, fitting, orphans, remains, run_directory
from martlet.serve.child import Child
from martlet.serve.forkserver import Forkserver
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
ORPHANS_EVERY = 1.0


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
    settings = await asyncio.to_thread(fitting.settle_network, settings)
    if _runs_code(settings):
        await asyncio.to_thread(fitting.look_at_sandbox, settings)
    if settings.system.quick_cgroups and os.geteuid() == 0:
        log.info("cgroups", quick=moves.quicken())
    data = settings.system.function_storage_path
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = claims.lock(data)
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
    catalogue = await asyncio.to_thread(fitting.look_at_runtimes, settings)
    if _runs_code(settings):
        settings = await asyncio.to_thread(fitting.settle_engine, settings, catalogue)
        settings = await asyncio.to_thread(fitting.settle_microvms, settings)
    placeholders, settings = claims.reserve_ports(settings)
    run_directory.make(run)
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
