"""Where Martlet keeps its files unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_storage_path() -> Path:
    """The data folder: /var/lib/martlet for root, the XDG data folder for others."""
    if os.geteuid() == 0:
        return Path("/var/lib/martlet")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "martlet"
