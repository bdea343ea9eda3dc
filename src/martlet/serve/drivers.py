"""What isolates the instances of a lane, by the rungs that the machine has."""

from __future__ import annotations

from pathlib import Path

import structlog

from martlet.drivers import engines
from martlet.drivers.driver import Driver
from martlet.drivers.egress import Egress, networks_of
from martlet.drivers.microvm import MicroVmDriver
from martlet.drivers.process import ProcessDriver
from martlet.microvm.templates import Templates
from martlet.runtimes.catalogue import Catalogue
from martlet.settings import Settings

log = structlog.get_logger()


def drivers_of(settings: Settings, lane: int, packages: Path, catalogue: Catalogue) -> dict[str, Driver]:
    """Makes the drivers of a lane, by their rungs.

    Args:
        settings: of the platform, settled.
        lane: its number.
        packages: the folder of unpacked packages.
        catalogue: the runtimes of this machine.
    """
    system, run = settings.system, settings.run_directory
    networks = networks_of(settings.lane_count)
    processes = ProcessDriver(
        lane,
        packages,
        run,
        isolation=system.process_isolation_level,
        egress=Egress(run, system.egress_subnet, lane, networks),
        allow_host_network=system.allow_host_network,
        max_body=system.max_body,
        runtimes=catalogue,
    )
    drivers: dict[str, Driver] = {processes.name: processes}
    if not system.disable_container:
        way_out = Egress(run, system.egress_subnet, settings.lane_count + lane, networks)
        containers = engines.make(system.container_runtime, system, lane, run, catalogue, way_out)
        drivers[containers.name] = containers
    if not system.disable_microvm:
        way_out = Egress(run, system.egress_subnet, 2 * settings.lane_count + lane, networks)
        saved = system.microvm_path or system.function_storage_path / "microvms"
        microvms = MicroVmDriver(
            lane,
            packages,
            run,
            Templates(saved, lambda line: log.info("microvm", said=line)),
            egress=way_out,
            max_body=system.max_body,
            runtimes=catalogue,
        )
        drivers[microvms.name] = microvms
    return drivers
