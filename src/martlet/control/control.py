"""Control, wired: everything that the management API asks."""

from __future__ import annotations

import asyncio

from fastapi import Request

from martlet.builder.builds import Builds
from martlet.builder.packages import PackageStore
from martlet.builder.python import PythonBuilder
from martlet.config import Settings
from martlet.control.configuration import Configuration
from martlet.control.declared import Declared
from martlet.control.deployments import Deployments
from martlet.control.garbage import Garbage
from martlet.control.keyring import Keyring
from martlet.control.lanes import Lanes
from martlet.control.publishing import Publishing
from martlet.drivers.networks import Networks
from martlet.model import ExecutionMode
from martlet.package.rules import Limits
from martlet.package.staging import remove_tree
from martlet.runtimes import INTERPRETER, Catalogue
from martlet.storage.blobs import Blobs
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import Store

MODES = frozenset({ExecutionMode.PROCESS})
"""The rungs that lanes have in this version."""


class Control:
    """See the module. `open` it before it is asked anything.

    Args:
        settings: of the platform.
        store: of the platform; it stays the caller's to close.
        blobs: where packages are kept.
        lanes: the lanes of this machine.
        networks: what functions may have of the network here.
        catalogue: the runtimes of this machine.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        lanes: Lanes,
        networks: Networks,
        catalogue: Catalogue,
    ) -> None:
        system, data = settings.system, settings.system.function_storage_path
        self.settings = settings
        self.uploads = data / "uploads"
        self.store = store
        self.registry = Registry(store)
        self.view = RegistryView(store)
        self.lanes = lanes
        self.catalogue = catalogue
        self.builds = Builds(self.registry, data / "builds", system.max_builds)
        self.publishing = Publishing(self.registry, self.view, lanes)
        packages = PackageStore(blobs)
        self.garbage = Garbage(
            store, self.registry, self.view, self.publishing, packages, system.revisions_kept
        )
        limits = Limits(bytes=system.max_package, entries=system.max_package_files)
        builders = {
            runtime.description.name: PythonBuilder(data / "cache", INTERPRETER, limits)
            for runtime in catalogue.available()
        }
        self.deployments = Deployments(
            settings=system,
            configuration=Configuration(system, networks, catalogue, MODES),
            publishing=self.publishing,
            lanes=lanes,
            packages=packages,
            builds=self.builds,
            builders=builders,
            garbage=self.garbage,
        )
        self.keyring = Keyring(self.registry, self.publishing)
        self.declared = Declared(settings.functions, self.deployments)

    async def open(self) -> None:
        """Takes up the data as an earlier life left it, and begins to deploy what is declared."""
        await asyncio.to_thread(remove_tree, self.uploads)
        self.uploads.mkdir(parents=True)
        await self.view.start()
        await self.builds.open()
        await self.keyring.open(self.settings)
        await self.garbage.recover()
        self.declared.open()

    async def close(self) -> None:
        """Ends what goes on; a deploy that is cut off leaves the function as it was."""
        await self.declared.close()
        await self.builds.close()
        await self.garbage.close()
        await self.view.close()


def control_of(request: Request) -> Control:
    """Returns the control that a request is for."""
    control: Control = request.app.state.control
    return control
