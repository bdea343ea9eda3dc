"""The program of a keeper: it has an engine start containers when the lane asks, and holds their mounts.

It runs in the base interpreter, as a zygote does, and is a `parent`; besides what all of them say:

    lane → keeper   {"op": "start", "id", "network", "identity", "door", "frame"} + log, network of egress, cgroup doors
                    {"op": "show", "id", "code", "dependencies", "hostname", "scratch"}
                    {"op": "signal", "id", "signal"}
    keeper → lane   {"event": "refused", "id", "error"}     the engine starts no such container, or code cannot be shown
                    {"event": "rootless"}                   what containers have as their root has been deleted
                    {"event": "shown", "id"}                the code is there

It is the first process of a PID namespace: the kernel ends all containers with it, and gives it those as children whose
engine has ended. What it mounts is in its `Premises`, and gone with the last of them too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from martlet.sandbox import bundle, cgroups, hierarchies, namespaces, network, pause, syscalls
from martlet.sandbox.bundle import Frame
from martlet.sandbox.engine import LOG, Engine
from martlet.sandbox.entering import Entrance, Entrant
from martlet.sandbox.inside import Task
from martlet.sandbox.launcher import join
from martlet.sandbox.parent import Parent, serve
from martlet.sandbox.premises import Premises, Tenant
from martlet.sandbox.syscalls import Clone

_END_SECONDS = 1.0
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a keeper becomes.

    Attributes:
        engine: what starts its containers.
        program: the path of the engine's program.
        frame: what all of them have in common; None: each comes with its own.
        task: what forks of the keeper do that enter the containers, which then start as `pause`; None: what does it is
            what they start as.
        folder: an empty directory; what the keeper makes there nobody else sees.
        packages: the folder of all unpacked packages.
        resolvers: the text of ``resolv.conf``, but for those who share the network of the host.
        groups: the lane's cgroup, one directory for each tree; that of a cell is below and has its id for a name.
        lease: seconds to wait for the next lane when one is gone.
        hold: a descriptor that the keeper has inherited, by which the root stays; None: it does without.
    """

    engine: Engine
    program: str
    frame: Frame | None
    task: Task | None
    folder: str
    packages: str
    resolvers: str
    groups: list[str]
    lease: float
    hold: int | None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a plan."""
        engine, frame, task = Engine(**document["engine"]), document["frame"], document["task"]
        made = {"engine": engine, "frame": frame and Frame(**frame), "task": task and Task.from_json(task)}
        return cls(**document | made)


@dataclass(frozen=True, slots=True)
class _Start:
    """A container on its way.

    Attributes:
        cell: its id.
        identity: its user and group.
        log: where it prints.
        doors: of its cgroup.
        namespaces: that of egress, or none.
    """

    cell: str
    identity: int
    log: int
    doors: list[int]
    namespaces: list[int]

    @classmethod
    def of(cls, message: dict[str, Any], descriptors: list[int]) -> Self:
        log, *others = descriptors
        made_ahead = 1 if message["network"] == network.EGRESS else 0
        return cls(message["id"], message["identity"], log, others[made_ahead:], others[:made_ahead])

    def close(self) -> None:
        for descriptor in (self.log, *self.doors, *self.namespaces):
            os.close(descriptor)


class Keeper(Parent):
    """Starts containers on request and reports what becomes of them."""

    def __init__(self, listener: socket.socket, plan: Plan) -> None:
        super().__init__(listener, plan.lease)
        self._plan = plan
        self._premises = Premises(plan.folder, plan.packages)
        self._remains = cgroups.Remains(plan.groups)
        mounts = Path("/proc/self/mountinfo").read_text()
        self._group = hierarchies.name_in_trees(plan.groups, mounts) if plan.engine.makes_cgroups else ""
        # In the lane's own trees it wants the counts.
        self._others = hierarchies.find_others(plan.groups, mounts)
        self._starting: dict[int, _Start] = {}
        self._strangers: dict[int, int] = {}
        self._firsts: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._entrance: Entrance | None = None
        if plan.hold is not None:
            os.set_inheritable(plan.hold, False)

    def prepare(self) -> None:
        """Makes what all containers are shown. Raises OSError."""
        self._premises.make(self._plan.resolvers, one_hierarchy=self._plan.engine.one_hierarchy)
        if self._plan.task is not None and self._plan.frame is not None:
            self._open(self._plan.task, self._plan.frame)

    def _open(self, task: Task, frame: Frame) -> None:
        """Makes what containers start as, and what enters them then."""
        waiting = pause.program()
        assert waiting is not None
        self._premises.add_program(waiting)
        self._entrance = Entrance(task, frame.profile)

    def _serve(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message:
            case {"op": "start"}:
                self._start(message, descriptors)
            case {"op": "show", "id": cell}:
                try:
                    self._show(cell, message)
                except OSError as error:
                    self._tell("refused", id=cell, error=str(error))
                else:
                    self._tell("shown", id=cell)
            case {"op": "signal", "id": cell, "signal": number}:
                for engine, start in self._starting.items():
                    if start.cell == cell:
                        os.kill(engine, signal.SIGKILL)  # which may never be done
                self._signal(cell, number)

    def _start(self, message: dict[str, Any], descriptors: list[int]) -> None:
        start, frame = _Start.of(message, descriptors), self._plan.frame
        if frame is not None and not os.path.isdir(frame.root + bundle.DOOR):
            self._tell("rootless")
        try:
            self._admit(message, start)
            pid = os.fork()
        except OSError as error:
            start.close()
            self._forget(start.cell)
            self._tell("refused", id=start.cell, error=str(error))
            return
        if pid == 0:
            self._be_engine(message, start)
        self._starting[pid] = start

    def _admit(self, message: dict[str, Any], start: _Start) -> None:
        """Makes all that the engine is told of."""
        tenant = Tenant(
            start.cell,
            start.identity,
            message["network"],
            start.namespaces[0] if start.namespaces else None,
            message["door"],
            group=self._group and f"/{self._group}/{start.cell}",
        )
        frame = self._plan.frame or Frame(**message["frame"])
        self._premises.admit(tenant, frame, own_kernel=self._plan.engine.own_kernel)

    def _be_engine(self, message: dict[str, Any], start: _Start) -> NoReturn:
        """Becomes the engine, in the cgroup of the container, which prints where the engine does."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not self._plan.engine.makes_cgroups:
                join(start.doors)
            if self._plan.engine.own_kernel:
                # The threads of such a kernel wait for each other in vain where they take turns.
                os.sched_setaffinity(0, range(os.cpu_count() or 1))
            # Engines give what they read from to the container's user: nothing of the machine's, as /dev/null is.
            nothing, writer = os.pipe()
            os.close(writer)
            for number, descriptor in enumerate((nothing, start.log, start.log)):
                os.dup2(descriptor, number)
            folder = str(self._premises.of(start.cell))
            command = self._plan.engine.run(self._plan.program, folder, start.cell, message["network"])
            os.execve(self._plan.program, command, _ENVIRONMENT)  # noqa: S606
        except OSError as error:
            (self._premises.of(start.cell) / LOG).write_text(str(error))
        finally:
            os._exit(1)

    def _bury(self, pid: int, code: int) -> None:
        if pid in self._starting:
            start = self._starting.pop(pid)
            self._started(start, code)
            start.close()
        elif pid in self._ids:
            self._ended(pid, code)
        elif self._starting:
            self._strangers[pid] = code  # a container may be heard of before its engine
        if not self._starting:
            self._strangers.clear()

    def _ended(self, pid: int, code: int) -> None:
        """Notes that a container has ended; where only what runs in it has, ends the rest of it before that."""
        cell = self._ids[pid]
        if cell in self._firsts:
            first = self._firsts.pop(cell)
            os.kill(first, signal.SIGKILL)
            del self._ids[pid]
            self._pids[cell], self._ids[first], self._codes[cell] = first, cell, code
        else:
            super()._bury(pid, self._codes.pop(cell, code))
            self._forget(cell)

    def _started(self, start: _Start, code: int) -> None:
        """Notes what an engine has started, as which the container is the keeper's child now."""
        cell = start.cell
        pid = self._container_of(cell) if code == 0 else None
        if pid is None:
            name = self._plan.engine.name
            why = f"ended with {code}" if code else "says that it has, and has not"
            self._tell("refused", id=cell, error=self._premises.last_words(cell) or f"{name} {why}")
            self._forget(cell)
            return
        if self._entrance is not None and pid not in self._strangers:
            try:
                self._firsts[cell], pid = pid, self._enter(self._entrance, start, pid)
            except OSError as error:
                os.kill(pid, signal.SIGKILL)
                self._tell("refused", id=cell, error=str(error))
                self._forget(cell)
                return
        self._begin(cell, pid)
        if pid in self._strangers:
            self._bury(pid, self._strangers.pop(pid))

    def _container_of(self, cell: str) -> int | None:
        """Returns the process that an engine says it has started, if it is in the cgroup of its cell, or has been."""
        pid = self._premises.process_of(cell)
        if pid is None or pid in self._strangers:
            return pid
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            return None
        return pid if f"/{cell}\n" in groups else None

    def _enter(self, entrance: Entrance, start: _Start, first: int) -> int:
        """Forks what runs in the container whose process ``first`` waits. Returns its process id."""
        others = self._open_other_doors(start.cell)
        entrant = Entrant(start.identity, start.log, [*start.doors, *others])
        try:
            return entrance.fork(
                first, entrant, lambda error: self._tell("failed", id=start.cell, error=str(error))
            )
        finally:
            for door in others:
                os.close(door)

    def _open_other_doors(self, cell: str) -> list[int]:
        """Opens those of the cgroups that the engine alone has made."""
        return self._others.below(f"{self._group}/{cell}").open_doors() if self._group else []

    def _show(self, cell: str, message: dict[str, Any]) -> None:
        """Shows a container its code, and gives it its name and space."""
        if cell not in self._pids:
            raise OSError("there is no such container")
        self._premises.show(cell, message["code"], message["dependencies"], message["scratch"])
        if not self._plan.engine.own_kernel:
            _name(self._pids[cell], message["hostname"])

    def _forget(self, cell: str) -> None:
        """Removes what is left of a container that has ended, or of its start."""
        self._premises.clear(cell)
        if self._group:
            self._others.below(f"{self._group}/{cell}").empty(time.monotonic() + _END_SECONDS)

    def _outside(self, pid: int) -> int:
        return namespaces.host_id(pid, self._premises.proc)

    def _end(self) -> None:
        cells = [*self._pids]
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all that is in this PID namespace, but for this process
        self._remains.remove(cells)
        if self._group:
            self._others.below(self._group).remove()


def _name(pid: int, hostname: str) -> None:
    home = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(theirs, Clone.UTS)
        try:
            socket.sethostname(hostname)
        finally:
            syscalls.setns(home, Clone.UTS)
    finally:
        os.close(home)
        os.close(theirs)


def main(listener_descriptor: int, plan: dict[str, Any]) -> None:
    """Runs a keeper on the listening end of a channel until no lane needs it any more."""
    os.umask(0o022)  # what the keeper makes must be open to users of containers
    listener, what = socket.socket(fileno=listener_descriptor), Plan.from_json(plan)

    def make() -> Keeper:
        namespaces.become_first(listener_descriptor)
        keeper = Keeper(listener, what)
        keeper.prepare()
        return keeper

    serve(listener, what.lease, make)
    sys.exit(0)
