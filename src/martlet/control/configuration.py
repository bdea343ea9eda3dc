"""What a configuration becomes when keys of it are changed, and whether this platform can run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from martlet.control.builders import Builders
from martlet.drivers.networks import Networks
from martlet.errors import Invalid, NotFound
from martlet.images.store import Images
from martlet.microvm.machine import MOST_MEMORY, MOST_REQUESTS
from martlet.model import ExecutionMode, FunctionConfig, Network
from martlet.runtimes import Catalogue, Runtime
from martlet.runtimes.catalogue import RuntimeMissing
from martlet.settings import SystemSettings
from martlet.units import format_bytes
from martlet.validation import validated

SERVER = "http"
"""The runtime of functions that are images."""


class Configuration:
    """Makes the configurations of functions.

    Args:
        settings: of the platform: the default of ``execution_mode``.
        networks: what functions may have of the network.
        catalogue: the runtimes there are.
        modes: returns the rungs that there are.
        images: the images there are.
        builders: the machines that build: a runtime has the name that it has there.
    """

    def __init__(
        self,
        settings: SystemSettings,
        networks: Networks,
        catalogue: Catalogue,
        modes: Callable[[], frozenset[ExecutionMode]],
        images: Images,
        builders: Builders,
    ) -> None:
        self._settings = settings
        self._networks = networks
        self._catalogue = catalogue
        self._modes = modes
        self._images = images
        self._builders = builders

    def changed(self, before: FunctionConfig | None, changes: Mapping[str, Any]) -> FunctionConfig:
        """Returns ``before`` (None: the defaults) with some keys changed.

        Raises:
            Invalid: a key is unknown, a value is not allowed, or this platform runs no such function.
        """
        if before is not None:
            given = before.model_dump(mode="json")
        else:
            mode = changes.get("execution_mode", self._settings.default_mode)
            network = Network.NONE if mode == ExecutionMode.MICROVM else self._networks.default
            given = {"execution_mode": mode, "network": network}
        if changes.get("image") is not None:
            given["runtime"] = SERVER
        config = validated(FunctionConfig, {**given, **changes}, "config")
        modes = self._modes()
        if config.execution_mode not in modes:
            known = ", ".join(sorted(modes))
            raise Invalid(
                f"config.execution_mode: this platform runs {known}, not {config.execution_mode}",
                field="config.execution_mode",
            )
        if config.network in self._networks.refused:
            raise Invalid(f"config.network: {self._networks.refused[config.network]}", field="config.network")
        if config.egress_to and config.network is not Network.EGRESS:
            raise Invalid(
                f"config.egress_to: it narrows network: egress, and this function has {config.network}; "
                "change that, or let egress_to be empty",
                field="config.egress_to",
            )
        if config.execution_mode is ExecutionMode.MICROVM:
            _check_fits_machine(config)
        if config.image is None:
            config = config.model_copy(update={"runtime": self._builders.resolve(config.runtime)})
        return config if config.image is None else self._of_image(config, config.image)

    def for_file(self, config: FunctionConfig, file: str) -> FunctionConfig:
        """Returns a configuration with the runtime that a file name like this announces; with its own if none does, and
        the name has no suffix.

        Raises:
            Invalid: the suffix is of no runtime, or the runtime one that no machine builds.
        """
        try:
            name = self._catalogue.announced_by(file).description.name
        except RuntimeMissing as missing:
            name = missing.name
        except Invalid:
            if "." in file:
                raise
            return config
        return config.model_copy(update={"runtime": self._builders.resolve(name)})

    def for_folder(self, config: FunctionConfig, folder: Path) -> FunctionConfig:
        """Returns a configuration with the runtime that the files in a folder announce.

        Raises:
            Invalid: they announce none, or one that no machine builds.
        """
        try:
            name = self._catalogue.detect(folder).name
        except RuntimeMissing as missing:
            name = self._builders.resolve(missing.name)
        return config.model_copy(update={"runtime": name})

    def runtime(self, config: FunctionConfig) -> Runtime:
        """Returns the runtime that a configuration names. Raises `Invalid` where there is none."""
        return self._catalogue.resolve(config.runtime)

    def _of_image(self, config: FunctionConfig, reference: str) -> FunctionConfig:
        """Returns a configuration with the image that its name stands for now."""
        if config.execution_mode is not ExecutionMode.CONTAINER:
            raise Invalid(
                f"config.image: only a container runs an image, and this function has execution_mode: "
                f"{config.execution_mode}; set execution_mode: container, or leave image out",
                field="config.image",
            )
        if config.runtime != SERVER:
            raise Invalid(
                f"config.image: an image is an HTTP server of its own, and this function has runtime: "
                f"{config.runtime}; set runtime: {SERVER}, or leave image out",
                field="config.image",
            )
        try:
            image = self._images.find(reference)
        except NotFound as error:
            raise Invalid(f"config.image: {error.detail}", field="config.image") from None
        return config.model_copy(update={"image": image.reference})


def _check_fits_machine(config: FunctionConfig) -> None:
    """Raises `Invalid` where a function asks for what microVMs do not have."""
    if config.network is Network.HOST:
        raise Invalid(
            "config.network: a microVM is not in the network of the host; set network: egress or none, or another "
            "execution_mode",
            field="config.network",
        )
    if config.memory > MOST_MEMORY:
        raise Invalid(
            f"config.memory: a microVM has {format_bytes(MOST_MEMORY)} for its function, not "
            f"{format_bytes(config.memory)}; set memory to that at most, or another execution_mode",
            field="config.memory",
        )
    if config.concurrency > MOST_REQUESTS:
        raise Invalid(
            f"config.concurrency: a microVM serves {MOST_REQUESTS} requests at once, not {config.concurrency}; set "
            "concurrency to that at most, or another execution_mode",
            field="config.concurrency",
        )
