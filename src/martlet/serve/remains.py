"""What a former life of the platform may have left: processes that have not heard of its end, and sandboxes."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from contextlib import suppress
from pathlib import Path

import structlog

from martlet.drivers import remains
from martlet.drivers.docker import remains as of_docker
from martlet.drivers.driver import DriverError
from martlet.serve import run_directory

log = structlog.get_logger()

SETTINGS_VARIABLE = "MARTLET_SETTINGS"
"""The environment variable that names the settings file of a platform to its processes, and tells them by it."""
PARENT_VARIABLE = "MARTLET_PARENT"
"""The environment variable with the pid of the supervisor, with whom they end."""
SETTINGS_FILE = "settings.json"
"""Its name in the run directory."""

END_SECONDS = 5.0


async def sweep(run: Path, settings_file: Path) -> None:
    """Ends every process of a platform whose supervisor is gone, and removes its run directory.

    Args:
        run: the run directory.
        settings_file: what its processes were started with.
    """
    await asyncio.to_thread(_end_processes, settings_file)
    for each in (remains, of_docker):
        try:
            await each.sweep(run)
        except DriverError as error:
            log.error("remains_not_swept", error=str(error))
    run_directory.remove(run)


def _end_processes(settings_file: Path) -> None:
    """Kills control and the lanes. Each is held by a descriptor while it is looked at, so that no stranger is hit."""
    mark = f"{SETTINGS_VARIABLE}={settings_file}".encode()
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            process = os.pidfd_open(pid)
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    log.warning("former_process_ended", pid=pid)
                    select.select([process], [], [], END_SECONDS)
            finally:
                os.close(process)
