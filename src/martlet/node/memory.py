"""How much memory the machine has left."""

from __future__ import annotations

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def available_share() -> float:
    """Returns the share of the machine's memory that programs could have without swapping, from 0 to 1."""
    fields = {}
    for line in _MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            fields[name] = int(value.split()[0])
    return fields["MemAvailable"] / fields["MemTotal"]
