"""The sandbox of a build: one command, which may write to folders of its own and is gone with all that it started.

    control ── master ── first ── the command, and whatever it starts
               power     no power: process 1 of the sandbox

The *master* has the power to make the sandbox, and to give the folders back afterwards; it waits outside, until the
command has ended or its own standard input has, whose other end whoever wants the build holds. The *first* confines
itself, starts the command and waits for it and for its orphans; when it ends, the kernel ends all that is left.
The master is a program in the base interpreter, as a zygote is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from martlet.sandbox import (
    landlock,
    launcher,
    namespaces,
    network,
    privileges,
    rlimits,
    root,
    syscalls,
    users,
)
from martlet.sandbox.cgroups import GroupV1
from martlet.sandbox.landlock import Access
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.means import Means, Users
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone

ANSWER = 4
"""The descriptor on which the command may say what its user should be told."""
HOME = f"{root.SCRATCH}/home"
NAME = "build"
"""What the machine and the user are called inside."""
OVER_DISK = "over disk"
"""What a master says instead of a fault when it has ended a build that wrote too much."""
_DEEPEST, _LONGEST = 100, 2000
_PRIVATE = 0o700
_BLOCK = 512
_WATCH_SECONDS = 1.0
_REMOVAL_SECONDS = 5.0
_WATCH_SHARE = 0.1
"""The part of a core that looking at the folders may take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, and in what.

    Attributes:
        command: the program, at its path inside, and its arguments.
        environment: all of its environment.
        directory: where it starts, at its path inside.
        own: folders that it may write to: path on the host by path inside. They are given back when it has ended.
        named: folders that it sees, likewise.
        shown: files and folders that it sees at their own path.
        root: an empty directory to build the private root on.
        resolvers: the text of ``resolv.conf`` in it.
        network: as `martlet.sandbox.network` names it.
        means: what the host gives for a sandbox; without a root, paths inside are those of the host.
        filtered: whether system calls are filtered.
        identity: user and group id.
        scratch: bytes that ``/tmp`` may hold.
        disk: bytes that a file may grow to, and that all its folders may hold.
        open_files: descriptors a process may have.
        processes: processes and threads its user may have.
    """

    command: list[str]
    environment: dict[str, str]
    directory: str
    own: dict[str, str]
    named: dict[str, str]
    shown: list[str]
    root: str
    resolvers: str
    network: str
    means: Means
    filtered: bool
    identity: int
    scratch: int
    disk: int
    open_files: int
    processes: int

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a plan."""
        return cls(**document | {"means": Means.from_json(document["means"])})


@dataclass(frozen=True, slots=True)
class Ends:
    """Descriptors that a master is started with.

    Attributes:
        fault: says why there can be no sandbox; nothing where there is one.
        answer: becomes `ANSWER` of the command.
        namespace: the network namespace made for it; None where it makes its own or shares the host's.
        doors: of its cgroup.
        groups: where its cgroup is, in each tree: it is the master's to remove when nobody wants the build any more.
    """

    fault: int
    answer: int
    namespace: int | None
    doors: list[int]
    groups: list[str]


def main(plan: str, ends: str) -> NoReturn:
    """Is the master: runs the command of a plan, and ends with its exit code (128 and the signal, for a signal)."""
    os.umask(0o022)
    what, given = Plan.from_json(json.loads(plan)), Ends(**json.loads(ends))
    code = 1
    try:
        if what.means.ids is not None:
            users.enter(what.means.ids)
        _hand_over(what)
        try:
            code = _run(what, given)
        finally:
            _take_back(what)
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            os.write(given.fault, (str(error) or repr(error)).encode())
    if _is_unwanted():
        _remove(given.groups)
    os._exit(code)


def reclaim(folder: str, owner: tuple[int, int] | None) -> None:
    """Makes all below a folder its platform's again: readable, and no deeper than what is to be read can follow.

    Nobody may be at work in it.

    Args:
        folder: on the host.
        owner: user and group that it is to belong to; None where it does already.
    """
    folders = [(folder, 0)]
    while folders:
        path, depth = folders.pop()
        _own(path, owner)
        os.chmod(path, _PRIVATE)
        with os.scandir(path) as found:
            entries = list(found)
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                _own(entry.path, owner)
                if entry.is_file(follow_symlinks=False):
                    os.chmod(entry.path, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) | 0o600)
            elif depth < _DEEPEST and len(os.fsencode(entry.path)) < _LONGEST:
                folders.append((entry.path, depth + 1))
            else:
                _own(entry.path, owner)
                moved = f"{folder}/.too-deep-{secrets.token_hex(8)}"
                os.rename(entry.path, moved)
                folders.append((moved, 1))


def _hand_over(plan: Plan) -> None:
    """Gives the folders to the build. Nobody has been at work in them since they were taken back."""
    if plan.means.users is not Users.OWN:
        return
    for folder in plan.own.values():
        _give(folder, plan)
        for path, folders, files in os.walk(folder):
            for name in (*folders, *files):
                _give(f"{path}/{name}", plan)


def _give(path: str, plan: Plan) -> None:
    if plan.means.ids is not None:
        # Power over a file takes power over its group: the platform's own is not known in here.
        os.chown(path, -1, os.getegid(), follow_symlinks=False)
    os.chown(path, plan.identity, plan.identity, follow_symlinks=False)


def _take_back(plan: Plan) -> None:
    owner = (os.geteuid(), os.getegid()) if plan.means.users is Users.OWN else None
    for folder in plan.own.values():
        reclaim(folder, owner)


def _own(path: str, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        os.chown(path, *owner, follow_symlinks=False)


def _run(plan: Plan, ends: Ends) -> int:
    last_capability, lifeline = privileges.last_capability(), Lifeline()
    calls = Filter(Policy.load()) if plan.filtered else None
    if plan.means.confined:
        syscalls.unshare(Clone.PID)
    first = namespaces.fork(lambda: _be_first(plan, ends, lifeline, last_capability, calls))
    for descriptor in (1, 2, ends.answer):
        os.close(descriptor)  # whoever reads them hears of the end when the sandbox ends
    if not _wait(first, plan):
        os.write(ends.fault, OVER_DISK.encode())
    if not plan.means.confined:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first, signal.SIGKILL)
    _, status = os.waitpid(first, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _wait(first: int, plan: Plan) -> bool:
    """Waits for the end of process 1, and brings it about when nobody wants the build any more or it writes too much.

    Returns:
        False where it wrote too much.
    """
    ended, pause = os.pidfd_open(first), _WATCH_SECONDS
    while True:
        ready, _, _ = select.select([ended, 0], [], [], pause)
        if ended in ready:
            return _is_within(plan)  # it may have been quicker than any look at its folders
        began = time.monotonic()
        within = bool(ready) or _is_within(plan)
        if ready or not within:
            os.kill(first, signal.SIGKILL)
            return within
        pause = max(_WATCH_SECONDS, (time.monotonic() - began) / _WATCH_SHARE)


def _is_unwanted() -> bool:
    """Whether whoever wanted the build has let go of it, or is gone."""
    return bool(select.select([0], [], [], 0)[0])


def _remove(groups: Iterable[str]) -> None:
    """Removes the cgroup of a build, which its platform may not live to do."""
    deadline = time.monotonic() + _REMOVAL_SECONDS
    for directory in groups:
        GroupV1({"": Path(directory)}).empty(deadline)


def _is_within(plan: Plan) -> bool:
    """Whether the folders hold no more than they may."""
    return _used(plan.own.values(), plan.disk) <= plan.disk


def _used(folders: Iterable[str], enough: int) -> int:
    """Returns the bytes that lie below folders in which somebody is at work; once it is over ``enough``, no more."""
    left, used = list(folders), 0
    while left and used <= enough:
        # What has just gone, or lies too deep to be named, counts for nothing until it is done.
        with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    # An empty file takes room as well: that of its name.
                    used += entry.stat(follow_symlinks=False).st_blocks * _BLOCK + _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
    return used


def _be_first(
    plan: Plan,
    ends: Ends,
    lifeline: Lifeline,
    last_capability: int,
    filter: Filter | None,  # noqa: A002
) -> NoReturn:
    code = 1
    try:
        lifeline.keep_reader()
        lifeline.hold()
        _confine(plan, ends, lifeline, last_capability, filter)
        code = _oversee(_start(plan, ends))
    except Exception as error:
        with contextlib.suppress(OSError):
            os.write(ends.fault, (str(error) or repr(error)).encode())
    finally:
        os._exit(code)


def _confine(
    plan: Plan,
    ends: Ends,
    lifeline: Lifeline,
    last_capability: int,
    filter: Filter | None,  # noqa: A002
) -> None:
    """Drops all power; the steps are those of `launcher`, at once instead of in two parts."""
    launcher.join(ends.doors)
    os.setsid()
    if plan.means.confined:
        namespaces.separate()
        network.enter(plan.network, ends.namespace)
        _build_root(plan)
        socket.sethostname(NAME)
    privileges.forbid_new_privileges()
    if plan.means.confined:
        privileges.empty_bounding_set(last_capability)
    _keep_only((ends.fault, ends.answer, lifeline.reader))
    rules = launcher.rules_for(launcher.allowed(plan.means, _access(plan)))
    os.chdir(plan.directory)
    launcher.become(plan.identity, plan.means, last_capability)
    lifeline.hold()
    lifeline.release()
    shared = plan.means.users is Users.SHARED
    rlimits.apply(plan.open_files, plan.disk, processes=None if shared else plan.processes)
    os.makedirs(plan.environment["HOME"], exist_ok=True)
    if rules is not None:
        rules.enforce()
    if filter is not None:
        filter.load()


def _build_root(plan: Plan) -> None:
    user = f"{NAME}:x:{plan.identity}:{plan.identity}:{NAME}:{HOME}:/bin/sh"
    root.build_for_builds(
        Path(plan.root),
        Path(sys.base_prefix),
        plan.resolvers,
        shown=[Path(place) for place in plan.shown],
        named={inside: Path(folder) for inside, folder in plan.named.items()},
        own={inside: Path(folder) for inside, folder in plan.own.items()},
        scratch=plan.scratch,
        user=user,
    )
    if plan.network == network.HOST:
        root.show_resolvers_of_host()
    root.mount_proc()


def _access(plan: Plan) -> dict[str, Access]:
    """Returns what Landlock is to allow besides the usual."""
    if plan.means.confined:
        return dict.fromkeys(plan.own, landlock.ALL)
    seen = dict.fromkeys((*plan.shown, *plan.named.values()), landlock.READ)
    return seen | dict.fromkeys(plan.own.values(), landlock.ALL)


def _keep_only(kept: Sequence[int]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    lowest = 3
    for descriptor in sorted(kept):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))


def _start(plan: Plan, ends: Ends) -> int:
    pid = os.fork()
    if pid:
        os.close(ends.answer)
        os.close(ends.fault)
        return pid
    # Out of the way of `ANSWER`, and gone as soon as the program is executed.
    fault = fcntl.fcntl(ends.fault, fcntl.F_DUPFD_CLOEXEC, ANSWER + 1)
    try:
        os.dup2(ends.answer, ANSWER)
        os.set_inheritable(ANSWER, True)
        os.closerange(3, ANSWER)
        os.closerange(ANSWER + 1, fault)
        os.closerange(fault + 1, os.sysconf("SC_OPEN_MAX"))
        os.execve(plan.command[0], plan.command, plan.environment)  # noqa: S606
    except OSError as error:
        os.write(fault, f"{plan.command[0]}: {error.strerror}".encode())
    os._exit(127)


def _oversee(command: int) -> int:
    """Buries every process that ends here, until it is the command itself; returns its exit code."""
    while True:
        pid, status = os.wait()
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
