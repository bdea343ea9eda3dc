"""Noticing that files changed, by looking at their times: enough for one function, on any file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from martlet.package.ignore import Ignore

INTERVAL = 0.3
"""Seconds between two looks."""

Snapshot = dict[str, tuple[int, int]]


def snapshot(source: Path) -> Snapshot:
    """Returns the time of change (ns) and the size of each file that a deploy of ``source`` would read."""
    if not source.is_dir():
        return _one(source, source.name) | _one(source.parent / "martlet.yaml", "martlet.yaml")
    found: Snapshot = {}
    ignore = Ignore.of(source)
    for folder, folders, files in os.walk(source):
        below = Path(folder).relative_to(source)
        folders[:] = [name for name in folders if not ignore.matches(str(below / name), True)]
        for name in files:
            if not ignore.matches(str(below / name), False):
                found |= _one(Path(folder, name), str(below / name))
    return found


async def changes(source: Path, interval: float = INTERVAL) -> AsyncIterator[list[str]]:
    """Yields the names of the files that changed, were added or removed, each time there are some; for ever.

    Editors write in several steps, so a change is reported once two looks in a row see the same.
    """
    known = snapshot(source)
    while True:
        await asyncio.sleep(interval)
        seen = snapshot(source)
        while seen != known and seen != (settled := await _later(source, interval)):
            seen = settled
        if seen != known:
            changed = sorted(name for name in known.keys() | seen.keys() if known.get(name) != seen.get(name))
            known = seen
            yield changed


async def _later(source: Path, interval: float) -> Snapshot:
    await asyncio.sleep(interval)
    return snapshot(source)


def _one(path: Path, name: str) -> Snapshot:
    try:
        status = path.stat()
    except OSError:
        return {}
    return {name: (status.st_mtime_ns, status.st_size)}
