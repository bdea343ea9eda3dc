"""One lane: a gateway and a node in one process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from time import monotonic

import structlog

from martlet.cluster.identity import Identity
from martlet.control.machine import node_id
from martlet.gateway.acceptance import Acceptance
from martlet.gateway.admission import Admission
from martlet.gateway.attempt import Attempts
from martlet.gateway.buckets import Buckets
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.fleet import Fleet
from martlet.gateway.gateway import Gateway
from martlet.gateway.peers import Peers
from martlet.gateway.quotas import Quotas
from martlet.gateway.readiness import Readiness
from martlet.gateway.routing import Routing
from martlet.gateway.worker import Worker
from martlet.http.hop import KEPT_SECONDS, Hop, notice_silence, over_unix
from martlet.http.server import Server, ServerLimits
from martlet.model import Role
from martlet.node.endpoint import Endpoint
from martlet.node.logs import LogStore
from martlet.node.node import Node
from martlet.node.packages import PackageCache
from martlet.node.recorder import Recorder
from martlet.node.shipping import Shipping
from martlet.node.withdrawal import Withdrawal
from martlet.queue_address import RedisAddress
from martlet.runtimes.catalogue import Catalogue
from martlet.serve.drivers import drivers_of
from martlet.settings import Settings
from martlet.storage.blobs import Blobs
from martlet.storage.invocations import Invocations
from martlet.storage.log_shelf import LogShelf
from martlet.storage.opening import open_broker, open_store
from martlet.storage.registry import RegistryView
from martlet.store_address import EtcdAddress
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats

log = structlog.get_logger()

BACKLOG = 4096
HANDSHAKE = 5.0
"""Seconds that another machine may take to prove who it is."""
DRAIN = 5.0
"""Seconds that requests under way may take when the lane is told to stop, and was not told before that it would be."""
LOOK = 0.02
"""Seconds between two looks at what is still under way."""


async def run_lane(settings: Settings, number: int) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _pin(settings, number)
    data, run, system = settings.system.function_storage_path, settings.run_directory, settings.system
    own, shared = node_id(data), isinstance(system.store, EtcdAddress)

    store = await open_store(system.store, data)
    view = RegistryView(store)
    await view.start()
    withdrawal = Withdrawal(view, own)
    stats = LaneStats()
    history = History(data / f"history-{number}.db", system.invocations_kept)
    logs = LogStore(
        data / "logs", f"lane-{number}", system.log_bytes_per_function, system.log_bytes_per_invocation
    )
    catalogue = Catalogue.of(system)
    packages = PackageCache(data / "packages", Blobs.of(system.blobs, data / "blobs"), system.package_cache)
    drivers = drivers_of(settings, number, packages.directory, catalogue) if Role.NODE in system.roles else {}

    def resolve(name: str) -> tuple[str, int | None]:
        runtime = catalogue.resolve(name)
        return runtime.name, runtime.description.start.cells

    node = Node(
        lane=number,
        lanes=settings.lane_count,
        settings=system,
        run=run,
        view=view,
        drivers=drivers,
        packages=packages,
        logs=logs,
        recorder=Recorder(stats, history),
        runtimes=resolve,
        withdrawal=withdrawal,
        own=own if shared else None,
    )
    packages.in_use = node.packages_in_use
    await node.open()
    identity, control = Identity(data), Hop(over_unix(run / "control.sock"), "the management API")
    manages = Role.CONTROL in system.roles
    fleet = (
        Fleet(
            view,
            node.portion.shares,
            own,
            identity.towards_others(),
            withdrawal,
            control if manages else None,
        )
        if system.clustered
        else None
    )
    routing, dispatch = Routing(view, system.domain), Dispatch(node, run, fleet)
    broker = await open_broker(system.queue, data, system.async_attempts)
    invocations = Invocations(broker, system.async_queue, system.async_kept)
    attempts = Attempts(
        view, routing, dispatch, system.async_attempts, system.async_retry, system.async_max_body
    )
    queue_is_shared = isinstance(system.queue, RedisAddress)  # else nobody else can run what waits here
    worker = Worker(
        invocations,
        view,
        attempts,
        stats,
        lambda: queue_is_shared and withdrawal.begun and fleet is not None and fleet.relieved,
    )
    quotas = Quotas(view, own) if shared else None
    if quotas is not None:
        node.count_asked = lambda: quotas.asked(monotonic())
    gateway = Gateway(
        node=node,
        view=view,
        admission=Admission(
            view,
            Buckets(run / "buckets"),
            system.rate_limit_per_client,
            system.wrong_keys_per_client,
            quotas,
        ),
        routing=routing,
        dispatch=dispatch,
        acceptance=Acceptance(invocations, view, stats, system.async_max_body, worker.wake),
        manage=control.send if fleet is None else fleet.manage,
        readiness=Readiness(view, own, withdrawal, manages),
        max_body=system.max_body,
        max_upload=system.max_package,
        max_image=system.max_image,
    )
    public = Server(gateway, _limits(settings))
    withdrawal.on_stopping.append(public.turn_away)
    node.count_connections = lambda: len(public.connections)
    endpoint = Endpoint(node, view, lambda n: run / f"lane-{n}.sock", fleet.relay if fleet else None)
    inner = replace(_limits(settings), keep_alive_timeout=KEPT_SECONDS)
    private = Server(endpoint, inner)
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(private, str(_fresh(run / f"lane-{number}.sock")), backlog=BACKLOG)
    ports: list[asyncio.Server] = []
    if Role.GATEWAY in system.roles:
        listener = _listener(system.host, system.api_gateway_port)
        ports.append(await loop.create_server(public, sock=listener, backlog=BACKLOG))
    peers = Server(Peers(node, view, dispatch, endpoint, control if manages else None, run), inner)
    if system.peer_address is not None:
        listener = _listener(*system.peer_address)
        notice_silence(listener)  # as all that it accepts will
        ports.append(
            await loop.create_server(
                peers,
                sock=listener,
                backlog=BACKLOG,
                ssl=identity.for_others(),
                ssl_handshake_timeout=HANDSHAKE,
            )
        )
    watch = loop.create_task(public.watch_clients())
    worker.open()
    shipping = None
    if system.log_store is not None:
        shelf = LogShelf.of(system.log_store)
        shipping = Shipping(shelf, view, logs, history, stats, own, node.name)
        shipping.open()
    _spare_collections()
    log.info("lane_ready", roles=system.roles, port=system.api_gateway_port)

    await stop.wait()
    for port in ports:
        port.close()
    grace = system.drain_timeout if withdrawal.stopping else DRAIN
    deadline = monotonic() + grace
    await asyncio.gather(public.drain(grace), peers.drain(grace), worker.close(grace))
    while node.busy and monotonic() < deadline:  # with what another lane of this machine has sent
        await asyncio.sleep(LOOK)
    if fleet is not None:
        fleet.close()
    unix.close()
    watch.cancel()
    await node.close()
    packages.close()
    await broker.close()
    if shipping is not None:
        await shipping.close()
    await history.close()
    await logs.close()
    await view.close()
    await store.close()


def _limits(settings: Settings) -> ServerLimits:
    system = settings.system
    return ServerLimits(
        max_body=system.max_body,
        max_header=system.max_header,
        header_timeout=system.header_timeout,
        body_timeout=system.body_timeout,
        keep_alive_timeout=system.keep_alive_timeout,
        max_connections=system.max_connections,
    )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    return listener


def _fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


def _spare_collections() -> None:
    """Requests leave no cycles behind, so the garbage collector needs to look rarely, and never at what is here now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _pin(settings: Settings, number: int) -> None:
    """Keeps the lane, and the instances that it will fork, on one core: a wake-up across cores costs 10 times one on
    the same core."""
    cores = sorted(os.sched_getaffinity(0))
    if settings.system.pin_lanes and settings.lane_count > 1:
        os.sched_setaffinity(0, {cores[number % len(cores)]})
