"""What a former life of the platform may have left at its engine, and how it is removed without its lanes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from martlet.drivers.docker import monitors
from martlet.drivers.docker.labels import Labels
from martlet.drivers.docker.service import noted


async def sweep(run: Path) -> None:
    """Removes every container of the platform with this run directory, whose lanes are gone.

    Raises:
        DriverError: an engine does not answer.
    """
    labels = Labels.of(run, 0)
    for service in noted(run):
        try:
            engine = await service.reach()
            found = await engine.labelled(labels.of_platform)
            await asyncio.gather(*map(engine.remove, found))
            await monitors.end_forgotten(engine, labels.of_platform, labels.platform)
        finally:
            await service.close()
