"""One lane: a gateway and a node in one process."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from pathlib import Path

import structlog

from martlet.config import Settings
from martlet.drivers import engines
from martlet.drivers.driver import Driver
from martlet.drivers.egress import Egress, networks_of
from martlet.drivers.microvm import MicroVmDriver
from martlet.drivers.process import ProcessDriver
from martlet.gateway.admission import Admission
from martlet.gateway.buckets import Buckets
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.gateway import Gateway
from martlet.gateway.routing import Routing
from martlet.http.hop import Hop
from martlet.http.server import Server, ServerLimits
from martlet.microvm.templates import Templates
from martlet.node.endpoint import Endpoint
from martlet.node.logs import LogStore
from martlet.node.node import Node
from martlet.node.packages import PackageCache
from martlet.node.recorder import Recorder
from martlet.runtimes.catalogue import Catalogue
from martlet.storage.blobs import Blobs
from martlet.storage.opening import open_store
from martlet.storage.registry import RegistryView
from martlet.telemetry.history import History
from martlet.telemetry.stats import LaneStats

log = structlog.get_logger()

BACKLOG = 4096
DRAIN = 5.0
"""Seconds that requests under way may take when the lane is told to stop."""


async def run_lane(settings: Settings, number: int) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    _pin(settings, number)
    data, run, system = settings.system.function_storage_path, settings.run_directory, settings.system

    store = await open_store(system.store, data)
    view = RegistryView(store)
    await view.start()
    stats = LaneStats()
    history = History(data / f"history-{number}.db", system.invocations_kept)
    logs = LogStore(
        data / "logs", f"lane-{number}", system.log_bytes_per_function, system.log_bytes_per_invocation
    )
    catalogue = Catalogue.of(system)
    packages = PackageCache(data / "packages", Blobs.of(system.blobs, data / "blobs"), system.package_cache)
    networks = networks_of(settings.lane_count)
    driver = ProcessDriver(
        number,
        packages.directory,
        run,
        isolation=system.process_isolation_level,
        egress=Egress(run, system.egress_subnet, number, networks),
        allow_host_network=system.allow_host_network,
        max_body=system.max_body,
        runtimes=catalogue,
    )

    drivers: dict[str, Driver] = {driver.name: driver}
    if not system.disable_container:
        way_out = Egress(run, system.egress_subnet, settings.lane_count + number, networks)
        containers = engines.make(system.container_runtime, system, number, run, catalogue, way_out)
        drivers[containers.name] = containers
    if not system.disable_microvm:
        way_out = Egress(run, system.egress_subnet, 2 * settings.lane_count + number, networks)
        microvms = MicroVmDriver(
            number,
            packages.directory,
            run,
            Templates(system.microvm_path or data / "microvms", lambda line: log.info("microvm", said=line)),
            egress=way_out,
            max_body=system.max_body,
            runtimes=catalogue,
        )
        drivers[microvms.name] = microvms

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
    )
    packages.in_use = node.packages_in_use
    await node.open()
    gateway = Gateway(
        node=node,
        view=view,
        admission=Admission(
            view, Buckets(run / "buckets"), system.rate_limit_per_client, system.wrong_keys_per_client
        ),
        routing=Routing(view, system.domain),
        dispatch=Dispatch(node, run),
        control=Hop(run / "control.sock", "the management API"),
        max_body=system.max_body,
        max_upload=system.max_package,
        max_image=system.max_image,
    )
    public = Server(gateway, _limits(settings))
    node.count_connections = lambda: len(public.connections)
    private = Server(Endpoint(node, view, lambda n: run / f"lane-{n}.sock"), _limits(settings))
    loop = asyncio.get_running_loop()
    unix = await loop.create_unix_server(private, str(_fresh(run / f"lane-{number}.sock")), backlog=BACKLOG)
    tcp = await loop.create_server(
        public, sock=_listener(system.host, system.api_gateway_port), backlog=BACKLOG
    )
    watch = loop.create_task(public.watch_clients())
    _spare_collections()
    log.info("lane_ready", port=system.api_gateway_port)

    await stop.wait()
    tcp.close()
    await public.drain(DRAIN)
    unix.close()
    watch.cancel()
    await node.close()
    packages.close()
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
