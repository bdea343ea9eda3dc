"""What the supervisor starts, ``python -m martlet.serve DESCRIPTOR``: the forkserver, and what it becomes by forking.

The descriptor is the forkserver's end of a channel. Control and the lanes find their settings as JSON in the file that
``MARTLET_SETTINGS`` names; ``MARTLET_PARENT`` is the supervisor's pid.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import structlog
import uvloop

from martlet.sandbox.lifeline import die_with_parent
from martlet.serve import forkserver
from martlet.serve.remains import PARENT_VARIABLE, SETTINGS_VARIABLE
from martlet.settings import Settings
from martlet.telemetry.logging import configure


def main(role: str, number: int) -> None:
    """Runs one process of the platform until SIGTERM."""
    _stop_with_parent(int(os.environ.pop(PARENT_VARIABLE)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, who then asks us
    settings = Settings.model_validate_json(Path(os.environ.pop(SETTINGS_VARIABLE)).read_bytes())
    configure(settings.system.logging_level, settings.system.logging_format)
    structlog.contextvars.bind_contextvars(process=role if role == "control" else f"lane-{number}")
    if role == "control":
        from martlet.control.main import run_control

        uvloop.run(run_control(settings))
    else:
        from martlet.serve.lane import run_lane

        uvloop.run(run_lane(settings, number))


def _stop_with_parent(parent: int) -> None:
    """Asks for SIGTERM when the supervisor is gone, so that nothing it started outlives it."""
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


if __name__ == "__main__":
    main(*forkserver.serve(socket.socket(fileno=int(sys.argv[1]))))
