"""The driver of the `microvm` rung: every instance has a kernel of its own, in a machine restored from a template.

    lane (this driver) ── zygote, one a runtime ──┬── warden ── monitor ║ agent ── cell
                                                  └── warden ── monitor ║ agent ── instance

A warden and its monitor are confined as a cell of the `process` rung and its program are, by the same steps; what is
behind the bars is the machine's own. What a machine is made of is in `martlet.microvm`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import martlet
from martlet.drivers import contract
from martlet.drivers import launch as launches
from martlet.drivers.cell import Cell
from martlet.drivers.driver import CellSpec, DriverError, Guarantee, Handle, LoadFailed, State
from martlet.drivers.egress import Egress
from martlet.drivers.host import inspect
from martlet.drivers.identities import Identities
from martlet.drivers.local import LEASE, LocalDriver
from martlet.drivers.remains import socket_name
from martlet.drivers.resolvers import Resolvers
from martlet.drivers.sandboxes import limits_of, scratch_of
from martlet.drivers.startup import Startup
from martlet.drivers.zygote import Zygote
from martlet.errors import MartletError
from martlet.http.conversation import Conversation
from martlet.microvm import guest, qemu, warden
from martlet.microvm.machine import MEMORY, MOST_MEMORY, MOST_REQUESTS, OVERHEAD
from martlet.microvm.templates import Describe, monitor
from martlet.model import FunctionConfig, MiB, Network, Revision
from martlet.runtimes import INTERPRETER, Catalogue, Runtime
from martlet.sandbox import root
from martlet.sandbox.cgroups import Group, Limits
from martlet.sandbox.hierarchies import usable_group
from martlet.sandbox.inside import Task
from martlet.sandbox.launcher import Confinement
from martlet.sandbox.means import Means, Users
from martlet.sandbox.program import Program
from martlet.sandbox.zygote import CONFINEMENT, Plan
from martlet.units import format_bytes

_PROMISE = "functions with execution_mode: microvm run, each in a machine with a kernel of its own"
_NEEDED = {
    qemu.PROGRAM: "qemu-system-x86",
    guest.PROGRAM: "erofs-utils",
    "mmdebstrap": "mmdebstrap",
    "apt-get": "apt",
}
"""What microVMs and their guests are made by, and the Debian packages that have it."""
_START_SECONDS = 60.0
_PARENT = "microvm-{}"
_LINKED = "{}+network"
"""The name of the parent whose machines have a network device, which those of other functions do not have."""
_TURNS = 2 * (os.cpu_count() or 1)
"""Machines that start at once: to start one is work, of which more at once is none the sooner done."""


class Source(Protocol):
    """Where templates come from."""

    def of(self, runtime: Runtime, describe: Describe, *, linked: bool = False) -> Path:
        """See `martlet.microvm.templates.Templates.of`."""

    def accelerated(self) -> bool:
        """See `martlet.microvm.templates.Templates.accelerated`."""


class MicroVmDriver(LocalDriver[Zygote]):
    """See the module.

    Args:
        lane: as all that is not named here, for `LocalDriver`.
        templates: the saved machines.
    """

    name = "microvm"
    _parents_of = Zygote

    def __init__(
        self,
        lane: int,
        packages: Path,
        run: Path,
        templates: Source,
        *,
        egress: Egress | None = None,
        max_body: int = 20 * MiB,
        runtimes: Catalogue | None = None,
        lease: float = LEASE,
    ) -> None:
        super().__init__(
            lane,
            packages,
            run,
            identities=Identities.of_microvms(lane),
            isolation="strict",
            egress=egress,
            allow_host_network=False,
            max_body=max_body,
            runtimes=runtimes,
            lease=lease,
        )
        self._templates = templates
        self._further_parents = tuple(map(_LINKED.format, self._names()))
        self._root = self._run / "microvm-root"
        self._turns = asyncio.Semaphore(_TURNS)
        self._usual_limits = self._limits_of(FunctionConfig())

    def probe(self) -> list[Guarantee]:
        """Returns whether this machine has what microVMs take. None is started: to make a template takes long."""
        return [guarantee()]

    async def start(self, spec: CellSpec) -> Handle:
        """Restores a machine; returns once it answers for its health. Many at once wait for their turns."""
        if spec.network is Network.HOST:
            raise DriverError("microVMs have network: none or egress, not host")
        async with self._turns:
            return await super().start(spec)

    async def close(self) -> None:
        """Destroys every machine, then the zygotes and the lane's cgroup."""
        await super().close()
        shutil.rmtree(self._root, ignore_errors=True)

    async def _begin(self) -> Group | None:
        group = usable_group()
        if group is None:
            raise DriverError("microVMs need a cgroup to make theirs in: run Martlet as root")
        self._root.mkdir(parents=True, exist_ok=True)
        return group

    async def _start_cell(self, parent: Zygote, cell: Cell, network: Network) -> None:
        with cell.listening() as descriptors:
            cell.limit(self._usual_limits)
            cell.pid = await parent.fork(cell.id, network, cell.identity, descriptors)

    async def _greet(self, cell: Cell) -> None:
        await contract.check_health(cell.handle.socket, _START_SECONDS)
        # Another one, as a warden looks only at the first request of a connection: for code, this will be it.
        cell.conversation = await Conversation.begin(cell.socket)

    async def _equip(
        self, cell: Cell, revision: Revision, confinement: Confinement, *, template: bool
    ) -> dict[str, Any]:
        config = revision.config
        if config.memory > MOST_MEMORY:
            most = format_bytes(MOST_MEMORY)
            raise LoadFailed("TooLarge", f"a microVM has {most} for a function: set memory to that at most")
        if config.concurrency > MOST_REQUESTS:
            raise LoadFailed(
                "TooMany",
                f"a microVM serves {MOST_REQUESTS} requests at once: set concurrency to that at most",
            )
        document = contract.specialisation(
            revision,
            code=root.FUNCTION,
            dependencies=None if confinement.dependencies is None else root.DEPENDENCIES,
            max_body=self._max_body,
            template=template,
        )
        document[CONFINEMENT] = confinement._asdict()
        return document

    def _limits_of(self, config: FunctionConfig) -> Limits:
        """Returns what the whole machine is limited to. The function's own limit of memory is the guest's to hold."""
        limits = super()._limits_of(config)
        return Limits(MEMORY + OVERHEAD, limits.cpu, limits.processes)

    def _ended(self, id: str, code: int, failure: str | None) -> None:  # noqa: A002
        if code == warden.OUT_OF_MEMORY and (cell := self._cells.get(id)) is not None:
            cell.starved = True
        super()._ended(id, code, failure)

    def _socket_of(self, name: str) -> Path:
        return self._run / socket_name(_PARENT.format(name), Zygote)

    def _names(self) -> list[str]:
        return [runtime.name for runtime in self._runtimes.available()]

    def _listening(self, cell: Cell) -> list[int]:
        return []  # what listens is inside of the guest

    async def _make_way_out(self, egress: Egress) -> int:
        return await egress.make(guest=True)

    async def _parent_of(self, cell: Cell) -> Zygote:
        if cell.namespace is None:
            return await super()._parent_of(cell)
        runtime = self._resolve(cell.runtime)
        start = partial(self._start_parent, runtime, linked=True)
        return await self._parent(_LINKED.format(runtime.name), start)

    def _name_of_parent(self, handle: Handle) -> str:
        name = super()._name_of_parent(handle)
        linked = self._parents.get(_LINKED.format(name))
        has_it = linked is not None and linked.done() and handle.id in linked.result().cells
        return _LINKED.format(name) if has_it else name

    async def _start_parent(self, runtime: Runtime, at: Path, *, linked: bool = False) -> Zygote:
        try:
            template = await asyncio.to_thread(self._templates.of, runtime, describe, linked=linked)
            accelerated = await asyncio.to_thread(self._templates.accelerated)
            launch = launches.of(template, monitor(), accelerated=accelerated, linked=linked)
        except MartletError as error:
            raise DriverError(f"no microVM for {runtime.name}: {error.detail}") from None
        except OSError as error:
            raise DriverError(f"no microVM for {runtime.name}: {error}") from None
        assert self._group is not None
        plan = Plan(
            module=warden.__name__,
            module_folder=str(Path(martlet.__file__).parent.parent),
            program=Program(launch.command, {}, "warm", "descriptor"),
            shown=launch.shown,
            packages=str(self._packages),
            root=str(self._root),
            resolvers=Resolvers.find().text,
            means=_MEANS,
            calls="filtered",
            groups=self._group.directories,
            lease=self._lease,
            devices=launch.devices,
        )
        return await Zygote.start(at, INTERPRETER, plan, self._ended)


_MEANS = Means(confined=True, users=Users.OWN)


@dataclass(frozen=True, slots=True)
class Missing:
    """What this machine lacks for microVMs, and what to do about it."""

    why: str
    remedy: str


def guarantee() -> Guarantee:
    """Returns whether this machine runs microVMs."""
    missing = what_is_missing()
    if missing is not None:
        return Guarantee("microVMs", _PROMISE, State.MISSING, missing.why, missing.remedy, needed=False)
    why = f"by {qemu.PROGRAM}"
    return Guarantee("microVMs", _PROMISE, State.HELD, why, needed=False)


def what_is_missing() -> Missing | None:
    """Returns what this machine lacks; None where that is nothing."""
    if os.geteuid() != 0:
        return Missing("they take root here", "run Martlet as root")
    if (architecture := os.uname().machine) != "x86_64":
        return Missing(f"none are made for {architecture} yet", "use a machine with x86_64")
    lacking = [program for program in _NEEDED if shutil.which(program) is None]
    if lacking:
        packages = " ".join(_NEEDED[program] for program in lacking)
        return Missing(f"there is no program {', '.join(lacking)}", f"apt-get install {packages}")
    host = inspect(INTERPRETER, 0)
    if host.group is None or not host.filtered or host.means != _MEANS:
        why = "the sandbox that they run in is not held in full on this machine"
        return Missing(why, "see what `martlet doctor` says of it")
    return None


def describe(runtime: Runtime) -> Task:
    """Returns what the agent of a guest does for a runtime whose programs have the paths that they have in there."""
    startup, config = Startup.of(runtime, confined=True), FunctionConfig()
    limits = limits_of(config)
    usual = {"memory": limits.memory, "processes": limits.processes, "scratch": scratch_of(config)}
    return Task(startup.module, startup.seen_folder, startup.program, own_kernel=False, usual=usual)
