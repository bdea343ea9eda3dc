"""Control, wired: everything that the management API asks."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import Request

from martlet.builder.build_logs import BuildLogs
from martlet.builder.builder import Builder
from martlet.builder.builds import Builds, Sharing
from martlet.builder.packages import PackageStore
from martlet.builder.workshop import Workshop
from martlet.control.builders import Builders
from martlet.control.claims import Claims
from martlet.control.configuration import Configuration
from martlet.control.declared import Declared
from martlet.control.deployments import Deployments
from martlet.control.drains import Drains, gives_way
from martlet.control.duties import Duties
from martlet.control.elsewhere import Elsewhere
from martlet.control.garbage import Garbage
from martlet.control.keyring import Keyring
from martlet.control.lanes import Lanes
from martlet.control.leadership import Alone, Election, Leadership
from martlet.control.machine import Machine, modes_of, node_id
from martlet.control.machines import Machines
from martlet.control.publishing import Publishing
from martlet.control.queue import Queue
from martlet.control.roots import Roots
from martlet.control.shelves import Shelves
from martlet.control.sweeping import Sweeping
from martlet.control.trial import Trial
from martlet.drivers.egress import Egress, networks_of
from martlet.drivers.networks import Networks
from martlet.images.store import Images
from martlet.model import ExecutionMode, Network, Role
from martlet.package.rules import Limits
from martlet.package.staging import remove_tree
from martlet.runtimes import Catalogue
from martlet.scheduling.trend import Pace
from martlet.settings import Settings, SystemSettings
from martlet.storage.blobs import Blobs
from martlet.storage.broker import Broker
from martlet.storage.invocations import Invocations
from martlet.storage.log_shelf import LogShelf
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.store import Store
from martlet.store_address import EtcdAddress


class Control:
    """See the module. `open` it before it is asked anything.

    Args:
        settings: of the platform.
        store: of the platform; it stays the caller's to close.
        blobs: where packages are kept.
        lanes: the lanes of this machine.
        networks: what functions may have of the network here.
        catalogue: the runtimes of this machine.
        broker: the queues of the platform; likewise.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        blobs: Blobs,
        lanes: Lanes,
        networks: Networks,
        catalogue: Catalogue,
        broker: Broker,
    ) -> None:
        system, data = settings.system, settings.system.function_storage_path
        self.settings = settings
        self.uploads = data / "uploads"
        self.manages = Role.CONTROL in system.roles
        self.store = store
        self.registry = Registry(store)
        self.view = RegistryView(store)
        self.lanes = lanes
        self.machine = Machine(settings, lanes.sockets, catalogue)
        node = node_id(data)
        self.leadership: Leadership = (
            Election(store, node, gives_way=partial(gives_way, self.view, node))
            if isinstance(system.store, EtcdAddress)
            else Alone(node)
        )
        self.shelves = Shelves(
            LogShelf.of(system.log_store) if system.log_store is not None else None,
            store,
            self.view,
            system.log_bytes_per_function,
            may_sweep=lambda: self.leadership.leads,
        )
        self.machines = Machines(lanes.sockets, self.view, node, system.clustered, self.shelves)
        self.invocations = Invocations(broker, system.async_queue, system.async_kept)
        self.catalogue = catalogue
        self.images = Images(data / "images")
        # A deploy can be taken up elsewhere where what was sent with it is.
        shared = isinstance(system.store, EtcdAddress) and (system.blobs is not None or system.clustered)
        self.queue = Queue(self.registry, blobs, node, shared)
        sweeping = Sweeping(store, self.queue, node)
        self.publishing = Publishing(self.registry, self.view, lanes)
        self.builders = Builders(self.view, catalogue, node, Role.BUILDER in system.roles)
        logs = BuildLogs(blobs)
        self.elsewhere = Elsewhere(
            self.registry,
            self.view,
            logs,
            self.builders,
            self.queue,
            self.publishing.announce,
            store.revision,
        )
        self.builds = Builds(
            self.registry,
            data / "builds",
            system.max_builds,
            node,
            Sharing(logs, self.elsewhere.outcome) if shared else None,
        )
        packages = PackageStore(blobs)
        self.garbage = Garbage(
            store,
            self.registry,
            self.view,
            self.publishing,
            packages,
            self.queue,
            sweeping,
            system.revisions_kept,
            # What only this machine has is no other's business.
            may_sweep=lambda: system.blobs is None or self.leadership.leads,
        )
        self.workshop = Workshop(
            settings.run_directory,
            settings.lane_count,
            network=networks.of_builds,
            egress=self._egress(networks),
            memory=system.build_memory,
            disk=system.build_disk,
            environment=system.build_environment,
            shown=system.build_folders,
        )
        self.builder = Builder(
            self.workshop,
            packages,
            data / "cache",
            cache=system.build_cache,
            prepared=system.build_prepared_path,
            limits=Limits(bytes=system.max_package, entries=system.max_package_files),
            timeout=system.build_timeout,
            lack=networks.lack,
        )
        self.configuration = Configuration(
            system, networks, catalogue, self._modes, self.images, self.builders
        )
        self.deployments = Deployments(
            settings=system,
            configuration=self.configuration,
            publishing=self.publishing,
            trial=Trial(system, node, lanes, self.view),
            roots=Roots(system, self.images),
            packages=packages,
            builds=self.builds,
            builder=self.builder,
            builders=self.builders,
            registry=self.registry,
            uploads=self.uploads,
            queue=self.queue,
            garbage=self.garbage,
            sweeping=sweeping,
        )
        self.keyring = Keyring(self.registry, self.publishing)
        self.drains = Drains(self.registry, self.view, lanes, node)
        self.duties = Duties(
            self.leadership,
            store,
            self.view,
            self.queue,
            self.garbage,
            self.shelves,
            Declared(settings.functions, self.deployments),
            pace=pace_of(system) if isinstance(system.store, EtcdAddress) else None,
        )

        self.claims = (
            Claims(self.queue, self.view, self.builds, self.builders, self.deployments.take_up, node)
            if shared and self.builders.here
            else None
        )

    async def open(self) -> None:
        """Takes up the data as an earlier life left it, and begins to deploy what is declared."""
        await asyncio.to_thread(remove_tree, self.uploads)
        self.uploads.mkdir(parents=True)
        await self.view.start()
        await asyncio.to_thread(self.images.prune, images_of(self.view))
        if self.builders.here:
            await self.workshop.open()
        await self.builds.open(self._waiting)
        if self.manages:
            await self.keyring.open(self.settings)
        # Where there is but one machine, what older versions have left is its own.
        own = [
            (each, written)
            for each, written in await self.queue.written()
            if self.queue.is_own(each) or (not each.node and self.claims is None and self.builders.here)
        ]
        names = {each.function for each, _ in own}
        await self.garbage.recover(self.registry, lambda name: self.leadership.leads or name in names)
        for each, written in own:
            await self.deployments.take_up(each, written)
        if self.claims is not None:
            self.claims.open()
        if self.manages:
            self.leadership.open(self.duties.lead)

    async def close(self) -> None:
        """Ends what goes on; a deploy that is cut off leaves the function as it was."""
        await self.leadership.close()
        if self.claims is not None:
            await self.claims.close()
        await self.builds.close()
        if self.builders.here:
            await self.workshop.close()
        await self.garbage.close()
        await self.shelves.close()
        await self.view.close()

    async def _waiting(self) -> set[str]:
        return {each.build for each in await self.queue.waiting()}

    def _modes(self) -> frozenset[ExecutionMode]:
        """Returns the rungs that functions may name: those of this machine, and of all others that run functions."""
        system = self.settings.system
        own = modes_of(system) if Role.NODE in system.roles else frozenset({ExecutionMode.PROCESS})
        return own.union(*(node.rungs for node in self.view.nodes.values()))

    def _egress(self, networks: Networks) -> Egress | None:
        if networks.of_builds is not Network.EGRESS:
            return None
        lanes = self.settings.lane_count
        parts = networks_of(lanes)
        return Egress(self.settings.run_directory, self.settings.system.egress_subnet, parts - 1, parts)


def pace_of(system: SystemSettings) -> Pace:
    """Returns how quickly instances follow the calls of all machines."""
    return Pace(
        stable=system.autoscale_window,
        panic=system.autoscale_panic_window,
        utilization=system.autoscale_utilization,
        up=system.autoscale_up,
        down=system.autoscale_down,
    )


def images_of(view: RegistryView) -> dict[str, list[str]]:
    """Returns the digests of the images that functions are, each with the revisions."""
    found: dict[str, list[str]] = {}
    for revision in view.revisions.values():
        if revision.config.image is not None:
            found.setdefault(revision.config.image.partition("@")[2], []).append(revision.id)
    return found


def control_of(request: Request) -> Control:
    """Returns the control that a request is for."""
    control: Control = request.app.state.control
    return control
