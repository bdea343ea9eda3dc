"""Which engine containers of this machine are started by, and the driver for it: the one place where that is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import structlog

from martlet.drivers import mandatory
from martlet.drivers.container import ContainerDriver
from martlet.drivers.docker import DockerDriver
from martlet.drivers.docker.service import Name, Service
from martlet.drivers.driver import Driver, DriverError, Guarantee, State, explain
from martlet.drivers.egress import Egress
from martlet.drivers.identities import Identities
from martlet.drivers.images import ImageRoots
from martlet.drivers.mandatory import Labels
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.roots import HostRoots, Roots
from martlet.errors import Invalid
from martlet.images.base import HOST
from martlet.images.store import Images
from martlet.runtimes import Catalogue
from martlet.sandbox.engine import CRUN, ENGINES, RUNC
from martlet.settings import SystemSettings

log = structlog.get_logger()

AUTO = "auto"
_IMAGES = "images"
_BY_API: tuple[Name, ...] = ("docker", "podman")
_PREFERRED = (CRUN.name, RUNC.name, *_BY_API)
"""What ``auto`` tries, the best first. runsc is for those who ask for it: it costs more."""


class Options(TypedDict):
    """What every driver takes."""

    egress: Egress | None
    allow_host_network: bool
    max_body: int
    runtimes: Catalogue


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen.

    Attributes:
        engine: its name; None: there are no containers here.
        guarantees: what holds of each engine that was tried, the chosen one last.
        label: what ``system.container_label`` has come to.
    """

    engine: str | None
    guarantees: tuple[Guarantee, ...]
    label: Literal["auto", "none"] = "none"


def choose(settings: SystemSettings, run: Path, runtimes: Catalogue) -> Choice:
    """Returns what starts containers here, found by starting one with each candidate until one does.

    Args:
        settings: what the operator wants.
        run: the platform's run directory.
        runtimes: those of this machine.

    Raises:
        Invalid: the operator has named an engine that starts no container.
    """
    if settings.disable_container:
        return Choice(None, ())
    tried: list[Guarantee] = []
    labels = _labels(settings)
    for name in _candidates(settings):
        driver = make(name, settings, 0, run, runtimes)
        found = _probe(driver)
        chosen = settings.container_label
        if labels and name not in _BY_API and not _starts(found):
            chosen = "none"
            driver = make(name, settings.model_copy(update={"container_label": chosen}), 0, run, runtimes)
            found = _probe(driver)
        tried += found
        if _starts(found):
            return Choice(name, (*tried, mandatory.guarantee(labels, driver.label)), chosen)
    if settings.container_runtime != AUTO:
        why = " ".join(explain(tried))
        raise Invalid(f"system.container_runtime: {why}", field="system.container_runtime")
    return Choice(None, tuple(tried))


def make(
    name: str,
    settings: SystemSettings,
    lane: int,
    run: Path,
    runtimes: Catalogue,
    egress: Egress | None = None,
) -> ContainerDriver | DockerDriver:
    """Returns the driver of a lane for the engine of this name."""
    options: Options = {
        "egress": egress,
        "allow_host_network": settings.allow_host_network,
        "max_body": settings.max_body,
        "runtimes": runtimes,
    }
    data = settings.function_storage_path
    for engine in _BY_API:
        if engine == name:
            folder = run.absolute() / f"lane-{lane}"
            roots = _roots(settings, lane)
            if roots is None:
                roots = HostRoots(folder / "containers" / "roots", Resolvers.find().text)
            service = Service(engine, folder / "podman.sock")
            ids = Identities.of_containers(lane)
            images = data / _IMAGES
            return DockerDriver(lane, run, roots, service, images=images, identities=ids, **options)
    return ContainerDriver(
        ENGINES[name],
        lane,
        data / "packages",
        run,
        roots=_roots(settings, lane),
        images=data / _IMAGES,
        labels=_labels(settings),
        **options,
    )


def _labels(settings: SystemSettings) -> Labels:
    return Labels.find() if settings.container_label == AUTO else Labels()


def _roots(settings: SystemSettings, lane: int) -> Roots | None:
    """Returns the roots that are images, where containers have those."""
    if settings.base_image == HOST:
        return None
    images = Images(settings.function_storage_path / _IMAGES)
    return ImageRoots(
        images,
        settings.base_image,
        f"lane-{lane}",
        settings.max_image,
        lambda line: log.info("base_image", said=line),
    )


def _probe(driver: Driver) -> list[Guarantee]:
    try:
        return driver.probe()
    except (DriverError, OSError) as error:
        remedy = "see docs/containers.md"
        return [Guarantee("containers", "functions run in containers", State.MISSING, str(error), remedy)]


def _starts(found: Iterable[Guarantee]) -> bool:
    return not any(each.broken or each.state is State.MISSING for each in found)


def _candidates(settings: SystemSettings) -> Iterable[str]:
    return _PREFERRED if settings.container_runtime == AUTO else (settings.container_runtime,)
