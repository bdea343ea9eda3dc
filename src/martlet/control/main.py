"""The control process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvicorn

from martlet.control.api import create_app
from martlet.control.control import Control
from martlet.control.lanes import Lanes
from martlet.drivers.networks import Networks
from martlet.http.hop import KEPT_SECONDS
from martlet.runtimes.catalogue import Catalogue
from martlet.settings import Settings
from martlet.storage.blobs import Blobs
from martlet.storage.opening import open_broker, open_store

log = structlog.get_logger()

SOCKET = "control.sock"
DRAIN = 5
"""Seconds that requests under way may take when control is told to stop."""


async def run_control(settings: Settings) -> None:
    """Serves the management API on ``control.sock`` of the run directory until SIGTERM."""
    data, run = settings.system.function_storage_path, settings.run_directory
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = await open_store(settings.system.store, data)
    broker = await open_broker(settings.system.queue, data, settings.system.async_attempts)
    lanes = Lanes(
        [run / f"lane-{number}.sock" for number in range(settings.lane_count)],
        settings.system.cold_start_timeout,
    )
    networks = await asyncio.to_thread(Networks.of, settings.system)
    catalogue = await asyncio.to_thread(Catalogue.of, settings.system)
    control = Control(
        settings, store, Blobs.of(settings.system.blobs, data / "blobs"), lanes, networks, catalogue, broker
    )
    try:
        await control.open()
        tempfile.tempdir = str(control.uploads)  # forms are spooled there: /tmp may be memory
        await _serve(control, run / SOCKET)
    finally:
        await control.close()
        await broker.close()
        await store.close()


class _Server(uvicorn.Server):
    """Leaves signals to `run_control`: uvicorn would raise them anew, before the store is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


async def _serve(control: Control, path: Path) -> None:
    config = uvicorn.Config(
        create_app(control),
        http="httptools",
        ws="none",  # else it imports what it finds for websockets, of which the API has none
        lifespan="off",
        log_config=None,
        log_level="warning",  # its start and its end are said already
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=int(KEPT_SECONDS),
        timeout_graceful_shutdown=DRAIN,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    log.info("control_ready", socket=str(path))
    await server.serve([_listener(path)])


def _listener(path: Path) -> socket.socket:
    """Listens on a unix socket that is this user's only, from its first moment."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener
