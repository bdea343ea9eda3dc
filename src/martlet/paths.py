"""Where Martlet keeps its files unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_storage_path() -> Path:
    """The data folder: /var/lib/martlet for root, the XDG data folder for others."""
    if os.geteuid() == 0:
        return Path("/var/lib/martlet")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "martlet"


def runtime_path() -> Path:
    """The folder of sockets: /run/martlet for root, in the XDG runtime folder, or in /tmp, for others."""
    if os.geteuid() == 0:
        return Path("/run/martlet")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "martlet") if runtime else Path(f"/tmp/martlet-{os.geteuid()}")  # noqa: S108
