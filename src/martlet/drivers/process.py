"""The driver of the `process` rung: a zygote forks cells into sandboxes of Linux namespaces.

    lane (this driver) ── zygote, one a runtime ──┬── cell        socket, log, cgroup and user id of its own
                                                  ├── instance
                                                  └── template ── instance, in the sandbox of its template

What confines a cell is in `martlet.sandbox`; here is what the lane does about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any, Literal

from martlet.drivers.cell import Cell
from martlet.drivers.driver import CellSpec, DriverError, Guarantee, Handle, Loaded, Unforkable, require
from martlet.drivers.egress import Egress
from martlet.drivers.held import SOCKET
from martlet.drivers.host import inspect
from martlet.drivers.identities import Identities
from martlet.drivers.local import LEASE, LocalDriver
from martlet.drivers.place import Place
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.sandboxes import USUAL_LIMITS, limits_of
from martlet.drivers.startup import Startup
from martlet.drivers.template import Template
from martlet.drivers.zygote import OnObserved, Zygote
from martlet.errors import Invalid
from martlet.http.conversation import Conversation
from martlet.http.fetch import FetchError
from martlet.model import MiB, Network, Revision
from martlet.runtimes import INTERPRETER, Catalogue, Runtime
from martlet.sandbox import root
from martlet.sandbox.cgroups import Group
from martlet.sandbox.launcher import UNCONFINED_CODE, UNCONFINED_DEPENDENCIES, Confinement
from martlet.sandbox.means import Means, Users
from martlet.sandbox.zygote import Plan


class ProcessDriver(LocalDriver[Zygote]):
    """See the module.

    Args:
        lane: as all that is not named here, for `LocalDriver`.
        on_observed: makes the calls that instances are denied wait until the one it is told of answers them.
    """

    name = "process"
    _parents_of = Zygote

    def __init__(
        self,
        lane: int,
        packages: Path,
        run: Path,
        *,
        isolation: Literal["strict", "relaxed"] = "strict",
        egress: Egress | None = None,
        allow_host_network: bool = False,
        max_body: int = 20 * MiB,
        runtimes: Catalogue | None = None,
        on_observed: OnObserved | None = None,
        lease: float = LEASE,
    ) -> None:
        super().__init__(
            lane,
            packages,
            run,
            identities=Identities(lane),
            isolation=isolation,
            egress=egress,
            allow_host_network=allow_host_network,
            max_body=max_body,
            runtimes=runtimes,
            lease=lease,
        )
        self._root = self._run / "root"
        self._means = Means(confined=True, users=Users.OWN)
        self._filtered = True
        self._on_observed = on_observed

    def probe(self) -> list[Guarantee]:
        """Returns what the sandbox promises, and what of it holds: `strict` takes all, `relaxed` what there is."""
        return inspect(INTERPRETER, self._lane).guarantees

    async def close(self) -> None:
        """Destroys every cell and instance, then the zygotes and the lane's cgroup."""
        await super().close()
        shutil.rmtree(self._root, ignore_errors=True)

    async def _begin(self) -> Group | None:
        host = await asyncio.to_thread(inspect, INTERPRETER, self._lane)
        if self._isolation == "strict":
            require(host.guarantees)
        self._means, self._filtered = host.means, host.filtered
        self._confined = host.means.confined
        self._identities = Identities(self._lane, host.identities)
        self._root.mkdir(parents=True, exist_ok=True)
        return host.group

    async def prepare(self, cell: str, directory: Path) -> None:
        """Makes socket, log and cgroup, with the limits that most functions keep, and connects to the socket."""
        group = self._group_of(cell)
        try:
            with contextlib.ExitStack() as failed:
                place = failed.enter_context(Place(directory, group, listens=True))
                place.limit(USUAL_LIMITS)
                place.conversation = await Conversation.begin(directory / SOCKET)
                failed.pop_all()
        except BaseException as error:
            if group is not None:
                group.remove()
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, (OSError, FetchError)):
                raise DriverError(f"the place of the cell {cell} cannot be made: {error}") from error
            raise
        self._places[cell] = place

    async def _start_cell(self, parent: Zygote, cell: Cell, network: Network) -> None:
        with cell.listening() as descriptors:
            cell.limit(USUAL_LIMITS)
            if cell.urgent:
                self._expect(cell, await parent.fork_urgently(cell.id, network, cell.identity, descriptors))
            else:
                cell.pid = await parent.fork(cell.id, network, cell.identity, descriptors)

    async def prepare_template(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Does what `specialise` does, and connects to what the cell has become."""
        if not self._forks:
            raise Unforkable(
                "this lane cannot move a fork into a cgroup, or has no sandbox for it that is unobserved"
            )
        cell = self._living(handle)
        loaded = await self._specialise(cell, revision, code, dependencies, deadline, template=True)
        cell.end_conversation()
        try:
            cell.template = Template.connect(handle.socket, limits_of(revision.config), self._ended)
        except OSError as error:
            raise DriverError(f"the template is gone: {error}") from error
        return loaded

    async def fork(self, template: Handle, spec: CellSpec) -> Handle:
        """Has the template fork an instance into a cgroup of its own."""
        origin = self._living(template)
        parent, group = origin.template, self._group_of(spec.id)
        if parent is None or group is None:
            raise DriverError(f"{template.id} is no template")
        cell = Cell(self.name, spec.id, origin.runtime, spec.directory, group, origin.identity)
        cell.parent = parent

        async def fork() -> None:
            with cell.listening() as descriptors:
                cell.limit(parent.limits)
                cell.pid = await parent.fork(spec.id, group, descriptors)

        handle = await self._start(cell, fork)
        cell.end_conversation()
        return handle

    async def _equip(
        self, cell: Cell, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        seen = root.FUNCTION, root.DEPENDENCIES
        if not self._confined:
            seen = UNCONFINED_CODE, UNCONFINED_DEPENDENCIES
        return self._document(cell, revision, confinement, template=template, seen=seen)

    async def _start_parent(self, runtime: Runtime, at: Path) -> Zygote:
        try:
            startup = Startup.of(runtime, confined=self._confined)
        except Invalid as error:
            raise DriverError(error.detail) from None
        plan = Plan(
            module=startup.module,
            module_folder=str(startup.module_folder),
            program=startup.program,
            shown=startup.shown,
            packages=str(self._packages),
            root=str(self._root),
            resolvers=Resolvers.find().text,
            means=self._means,
            calls=self._calls,
            groups=[] if self._group is None else self._group.directories,
            lease=self._lease,
        )
        zygote = await Zygote.start(at, INTERPRETER, plan, self._ended)
        zygote.on_observed = self._on_observed
        return zygote

    @property
    def _forks(self) -> bool:
        """Whether there is a sandbox to fork in, and power to move what is forked into a cgroup."""
        confined_by_root = self._means.confined and self._means.ids is None
        return confined_by_root and self._group is not None and self._on_observed is None

    @property
    def _calls(self) -> Literal["filtered", "observed", "unfiltered"]:
        if not self._filtered:
            return "unfiltered"
        return "filtered" if self._on_observed is None else "observed"
