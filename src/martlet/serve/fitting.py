"""What this machine has of what the settings ask for: the sandbox, networks, runtimes, engines and microVMs.

Each function looks at it once for all processes of the platform.
"""

from __future__ import annotations

import structlog

from martlet.drivers import engines
from martlet.drivers.driver import DriverError, explain, require
from martlet.drivers.host import inspect
from martlet.drivers.microvm import what_is_missing
from martlet.drivers.networks import Networks
from martlet.errors import MartletError
from martlet.runtimes import INTERPRETER, Catalogue
from martlet.settings import Settings

log = structlog.get_logger()


class NotIsolated(MartletError):
    """The platform does not start because functions would not be isolated as it promises."""

    code, title = "not_isolated", "This machine does not let functions run isolated"


def settle_network(settings: Settings) -> Settings:
    """Returns the settings with the network that functions get which name none. Raises `Invalid`."""
    default = Networks.of(settings.system).default
    system = settings.system.model_copy(update={"default_network": default})
    return settings.model_copy(update={"system": system})


def look_at_sandbox(settings: Settings) -> None:
    """Refuses to go on where a guarantee is not held (strict), or says what functions must do without (relaxed).

    Raises:
        NotIsolated: a guarantee is not held, and the settings say strict.
    """
    guarantees = inspect(INTERPRETER, settings.lane_count - 1).guarantees
    if settings.system.process_isolation_level == "strict":
        try:
            require(guarantees)
        except DriverError as error:
            raise NotIsolated(str(error), field="system.process_isolation_level") from None
    for sentence in explain(guarantees):
        log.warning("guarantee_not_held", detail=sentence)


def look_at_runtimes(settings: Settings) -> Catalogue:
    """Finds the toolchains once for all: control and the lanes then read what their programs have answered."""
    catalogue = Catalogue.of(settings.system)
    found = [runtime.name for runtime in catalogue.available()]
    log.info("runtimes", found=found, absent=[absent.name for absent in catalogue.absent()])
    return catalogue


def settle_engine(settings: Settings, catalogue: Catalogue) -> Settings:
    """Returns the settings with the engine that starts containers here; without containers where none does.

    Raises:
        Invalid: they name one that does not.
    """
    choice = engines.choose(settings.system, settings.run_directory, catalogue)
    if choice.engine is not None:
        update: dict[str, object] = {
            "container_runtime": choice.engine,
            "container_label": choice.label,
        }
        log.info("containers", engine=choice.engine, label=choice.label)
    else:
        update = {"disable_container": True}
        log.info("no_containers", tried=[each.why for each in choice.guarantees])
    return settings.model_copy(update={"system": settings.system.model_copy(update=update)})


def settle_microvms(settings: Settings) -> Settings:
    """Returns the settings without microVMs where this machine lacks something for them."""
    if settings.system.disable_microvm or (missing := what_is_missing()) is None:
        return settings
    log.info("no_microvms", why=missing.why, remedy=missing.remedy)
    return settings.model_copy(
        update={"system": settings.system.model_copy(update={"disable_microvm": True})}
    )
