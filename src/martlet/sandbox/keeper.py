"""The program of a keeper: it has an engine start containers when the lane asks, and holds their mounts.

It runs in the base interpreter, as a zygote does, and is a `parent`; besides what all of them say:

    lane → keeper   {"op": "start", "id", "network", "identity", "door", "frame"} + log, network of egress, cgroup doors
                    {"op": "show", "id", "code", "dependencies", "hostname", "scratch"}
                    {"op": "signal", "id", "signal"}
    keeper → lane   {"event": "refused", "id", "error"}     the engine starts no such container, or code cannot be shown
                    {"event": "rootless"}                   what containers have as their root has been deleted
                    {"event": "shown", "id"}                the code is there

It is the first process of a PID namespace: the kernel ends all containers with it, and gives it those as children whose
engine has ended. What it mounts is in a mount namespace of its own, and gone with the last of them too:

    folder/dev sandbox hosts …          what all containers are shown; in sandbox, what they start as
    folder/cells/<id>/code/…            where code is mounted once the container runs, which sees it by propagation
    folder/cells/<id>/tmp               its scratch space
    folder/cells/<id>/bundle state …    the engine's
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from martlet.sandbox import (
    bundle,
    cgroups,
    namespaces,
    network,
    pause,
    root,
    syscalls,
)
from martlet.sandbox.bundle import PAUSE, Frame, Own
from martlet.sandbox.engine import BUNDLE, LOG, PID, STATE, Engine
from martlet.sandbox.entering import Entrance, Entrant
from martlet.sandbox.inside import FILTER, Task
from martlet.sandbox.launcher import join
from martlet.sandbox.moves import find_tree
from martlet.sandbox.parent import Parent, serve
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone, Mount, MountAttribute

_CELLS, _PROC, _DEV, _SANDBOX, _HOSTS, _RESOLVERS = "cells", "proc", "dev", "sandbox", "hosts", "resolv.conf"
_FUNCTION, _DEPENDENCIES = "function", "dependencies"
_CELL_SCRATCH = 1024 * 1024
_END_SECONDS = 1.0
_PROC_FLAGS = Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC
_DEV_FLAGS = Mount.NO_SUID | Mount.NO_EXEC
_PACKAGE = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV
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
        self._folder = Path(plan.folder)
        self._remains = cgroups.Remains(plan.groups)
        mounts = Path("/proc/self/mountinfo").read_text()
        self._group = cgroups.name_in_trees(plan.groups, mounts) if plan.engine.makes_cgroups else ""
        self._others = cgroups.find_others(plan.groups, mounts)  # in the lane's own trees it wants the counts
        self._starting: dict[int, _Start] = {}
        self._strangers: dict[int, int] = {}
        self._firsts: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._entrance: Entrance | None = None
        if plan.hold is not None:
            os.set_inheritable(plan.hold, False)

    def prepare(self) -> None:
        """Makes what all containers are shown. Raises OSError."""
        syscalls.unshare(Clone.MOUNT)
        syscalls.make_private()
        folder = str(self._folder)
        syscalls.mount("tmpfs", folder, Mount.NO_SUID, "mode=700")
        syscalls.make_shared(folder)
        for name in (_PROC, _SANDBOX, _CELLS):
            (self._folder / name).mkdir()
        syscalls.bind("/proc", f"{folder}/{_PROC}")
        syscalls.mount("proc", "/proc", _PROC_FLAGS)
        if self._plan.engine.one_hierarchy:
            _show_one_hierarchy()
        _make_dev(self._folder / _DEV)
        (self._folder / _HOSTS).write_text(root.HOSTS)
        (self._folder / _RESOLVERS).write_text(self._plan.resolvers)
        (self._folder / _SANDBOX / FILTER).write_bytes(bpf.compile(Policy.load()))
        own = self._folder / _SANDBOX / "martlet" / "sandbox"
        own.mkdir(parents=True)
        syscalls.bind(os.path.dirname(__file__), str(own))
        if self._plan.task is not None and self._plan.frame is not None:
            self._open(self._plan.task, self._plan.frame)

    def _open(self, task: Task, frame: Frame) -> None:
        """Makes what containers start as, and what enters them then."""
        waiting = pause.program()
        assert waiting is not None
        program = self._folder / _SANDBOX / PAUSE
        program.write_bytes(waiting)
        program.chmod(0o755)
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
            self._make_folder(message, start)
            pid = os.fork()
        except OSError as error:
            start.close()
            self._forget(start.cell)
            self._tell("refused", id=start.cell, error=str(error))
            return
        if pid == 0:
            self._be_engine(message, start)
        self._starting[pid] = start

    def _make_folder(self, message: dict[str, Any], start: _Start) -> None:
        """Makes all that the engine is told of: the bundle, the scratch space, where code will be."""
        cell, net = message["id"], message["network"]
        folder = self._folder / _CELLS / cell
        for name in (BUNDLE, STATE, root.SCRATCH[1:], f"code/{_FUNCTION}", f"code/{_DEPENDENCIES}"):
            (folder / name).mkdir(parents=True)
        scratch = f"{folder}{root.SCRATCH}"
        root.mount_space(scratch, _CELL_SCRATCH)
        # As every program names it here, also one that has not inherited it.
        here = [f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in start.namespaces]
        namespace = here[0] if here else ("" if net == network.NONE else None)
        resolvers = "/etc/resolv.conf" if net == network.HOST else f"{self._folder}/{_RESOLVERS}"
        own = Own(
            message["identity"],
            namespace,
            binds={
                "/dev": f"{self._folder}/{_DEV}",
                bundle.SANDBOX: f"{self._folder}/{_SANDBOX}",
                bundle.CODE: f"{folder}/code",
                "/etc/hosts": f"{self._folder}/{_HOSTS}",
                "/etc/resolv.conf": resolvers,
            },
            writable={root.SCRATCH: scratch, bundle.DOOR: message["door"]},
            group=self._group and f"/{self._group}/{cell}",
        )
        frame = self._plan.frame or Frame(**message["frame"])
        document = bundle.make(frame, own, own_kernel=self._plan.engine.own_kernel)
        (folder / BUNDLE / "config.json").write_text(json.dumps(document))

    def _be_engine(self, message: dict[str, Any], start: _Start) -> NoReturn:
        """Becomes the engine, in the cgroup of the container, which prints where the engine does."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not self._plan.engine.makes_cgroups:
                join(start.doors)
            nothing = os.open("/dev/null", os.O_RDONLY)
            for number, descriptor in enumerate((nothing, start.log, start.log)):
                os.dup2(descriptor, number)
            folder = f"{self._folder}/{_CELLS}/{message['id']}"
            command = self._plan.engine.run(self._plan.program, folder, message["id"], message["network"])
            os.execve(self._plan.program, command, _ENVIRONMENT)  # noqa: S606
        except OSError as error:
            Path(self._folder, _CELLS, message["id"], LOG).write_text(str(error))
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
        cell, folder = start.cell, self._folder / _CELLS / start.cell
        pid = self._container_of(cell) if code == 0 else None
        if pid is None:
            name = self._plan.engine.name
            why = f"ended with {code}" if code else "says that it has, and has not"
            self._tell("refused", id=cell, error=_last_words(folder / LOG) or f"{name} {why}")
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
        try:
            pid = int((self._folder / _CELLS / cell / PID).read_text())
            groups = "" if pid in self._strangers else Path(f"/proc/{pid}/cgroup").read_text()
        except (OSError, ValueError):
            return None
        return pid if pid in self._strangers or f"/{cell}\n" in groups else None

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
        folder = f"{self._folder}/{_CELLS}/{cell}"
        if cell not in self._pids:
            raise OSError("there is no such container")
        for place, name in ((_FUNCTION, message["code"]), (_DEPENDENCIES, message["dependencies"])):
            if name is not None:
                syscalls.show(f"{self._plan.packages}/{name}", f"{folder}/code/{place}", _PACKAGE)
        root.resize_space(f"{folder}{root.SCRATCH}", message["scratch"])
        if not self._plan.engine.own_kernel:
            _name(self._pids[cell], message["hostname"])

    def _forget(self, cell: str) -> None:
        """Removes what is left of a container that has ended, or of its start; the engine would do no more."""
        folder = self._folder / _CELLS / cell
        for mounted in (f"code/{_FUNCTION}", f"code/{_DEPENDENCIES}", root.SCRATCH[1:]):
            with contextlib.suppress(OSError):  # nothing was mounted
                syscalls.unmount(str(folder / mounted))
        shutil.rmtree(folder, ignore_errors=True)
        if self._group:
            self._others.below(f"{self._group}/{cell}").empty(time.monotonic() + _END_SECONDS)

    def _outside(self, pid: int) -> int:
        return namespaces.host_id(pid, f"{self._folder}/{_PROC}")

    def _end(self) -> None:
        cells = [*self._pids]
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all that is in this PID namespace, but for this process
        self._remains.remove(cells)
        if self._group:
            self._others.below(self._group).remove()


def _make_dev(folder: Path) -> None:
    """Makes the devices of all containers, where nobody can make a file, whatever an engine mounts it as."""
    folder.mkdir()
    syscalls.mount("tmpfs", str(folder), _DEV_FLAGS, "mode=755")
    root.fill_dev(folder)
    syscalls.mount("tmpfs", str(folder), Mount.REMOUNT | Mount.READ_ONLY | _DEV_FLAGS)


def _show_one_hierarchy() -> None:
    """Takes the v2 tree away where limits are in the other ones."""
    mounts = Path("/proc/self/mountinfo").read_text()
    tree = find_tree(mounts)
    if tree is not None and " - cgroup " in mounts:
        syscalls.unmount(tree[0])


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


def _last_words(log: Path) -> str:
    """Returns what an engine has written last."""
    try:
        return log.read_text(errors="replace").strip().rpartition("\n")[2][-500:]
    except OSError:
        return ""


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
