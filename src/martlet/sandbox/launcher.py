"""The sandbox of a cell, step by step. What is dropped here never comes back.

`Sandbox.enter` runs before the cell has code, off the request path, and leaves it the power that `confine` needs.
`Sandbox.confine` runs when the cell becomes an instance, and ends before the first byte of the user's code is read.
`Sandbox.fork` is for a program that starts before there is code: it never has any power.
All take the same steps whether the zygote is root on the host or in a user namespace; a host may lack what some of
them need (`Means`), and then it was agreed to go without (relaxed).
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from martlet.sandbox import landlock, namespaces, network, privileges, rlimits, root, users
from martlet.sandbox.landlock import Access, Ruleset
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.means import Means, Users
from martlet.sandbox.seccomp.filter import Filter

_CELL_SCRATCH = 1024 * 1024
_LOG = 1
_ACCESS_OUTSIDE = {
    **dict.fromkeys(root.SYSTEM, landlock.READ),
    **dict.fromkeys(("/etc", "/proc", "/run/systemd/resolve", sys.base_prefix), landlock.READ),
    **dict.fromkeys((f"/dev/{device}" for device in root.DEVICES), landlock.WRITE_FILES),
    **dict.fromkeys(("/dev/shm", root.SCRATCH), landlock.ALL),  # noqa: S108
    "/proc/self": landlock.WRITE_FILES,
}
_LATE = frozenset({"mount", "prctl", "sethostname", "unshare"})
_CODE, _DEPENDENCIES = 98, 99
UNCONFINED_CODE = f"/proc/self/fd/{_CODE}"
UNCONFINED_DEPENDENCIES = f"/proc/self/fd/{_DEPENDENCIES}"
"""Where an instance without a private root finds its packages: their folder is not open to its user."""


def is_late(call: str | None) -> bool:
    """Whether a cell still makes a call when it gets code that no function may make, or not as freely."""
    return call in _LATE


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a cell is given, mostly by descriptor.

    Attributes:
        listener: where it takes requests.
        log: where it prints.
        cgroups: the doors of its cgroups.
        network: the name of its network (see `martlet.sandbox.network`).
        identity: user and group id, this sandbox's alone.
        namespace: the network namespace that was made for it, where its network is one that somebody makes.
        observer: what it keeps until it is confined, to hand over what is heard of the calls it is denied.
    """

    listener: int
    log: int
    cgroups: Sequence[int]
    network: str
    identity: int
    namespace: int | None = None
    observer: int | None = None


class Confinement(NamedTuple):
    """What a cell learns when it gets code; it travels inside the request to specialise.

    Attributes:
        code: name of the package under `root.PACKAGES`; its path on the host where there is no private root.
        dependencies: the same for the package with the dependencies, or None.
        hostname: what the machine is called inside.
        scratch: bytes that ``/tmp`` may hold.
        open_files: descriptors a process may have.
        processes: processes and threads its user may have; None: what the cgroup allows.
        every_cpu: whether the instance may leave its lane's core.
    """

    code: str
    dependencies: str | None
    hostname: str
    scratch: int
    open_files: int
    processes: int | None
    every_cpu: bool


class Sandbox:
    """What one cell is confined by, in the process of the cell.

    Args:
        belongings: what the cell was given.
        lifeline: ties it to its zygote.
        means: what the host gives.
        last_capability: the highest that the kernel knows.
        filter: of system calls; None where they are not filtered.
        shown: the folders that it sees beside the system's.
        kept: descriptors that it has from its zygote.
        early: what of the filter of system calls holds before there is code; ``filter`` is the rest then.
        mounts_as_user: whether it needs no power of root before it has code, but what `confine` takes to mount that.
    """

    def __init__(
        self,
        belongings: Belongings,
        lifeline: Lifeline,
        means: Means,
        last_capability: int,
        filter: Filter | None,  # noqa: A002
        shown: Collection[str] = (),
        kept: Collection[int] = (),
        early: Filter | None = None,
        mounts_as_user: bool = False,
    ) -> None:
        self._belongings = belongings
        self._lifeline = lifeline
        self._means = means
        self._last_capability = last_capability
        self._filter = filter
        self._early = early
        self._mounts_as_user = mounts_as_user and means.confined and means.users is Users.OWN
        self._shown = shown
        self._kept = kept
        self._own = {} if means.confined else dict.fromkeys(shown, landlock.READ)
        self._rules: Ruleset | None = None
        self._program: int | None = None

    def enter(self) -> None:
        """Moves a freshly forked process into its sandbox; the zygote's bounding set is empty. Raises OSError."""
        belongings, means = self._belongings, self._means
        self._lifeline.hold()
        join(belongings.cgroups)
        os.setsid()
        if means.confined:
            namespaces.separate()
            network.enter(belongings.network, belongings.namespace)
            if belongings.network == network.HOST:
                root.show_resolvers_of_host()
            root.mount_proc()
            root.mount_scratch(_CELL_SCRATCH)
            root.show_in_scratch(self._shown)
        privileges.forbid_new_privileges()
        _keep_only(belongings, self._lifeline, self._kept)
        self._rules = rules_for(means, self._own)
        if self._mounts_as_user:
            privileges.become_who_mounts(belongings.identity)
            self._hold_for_good()
        if self._early is not None:
            self._early.load()

    def confine(self, confinement: Confinement) -> int | None:
        """Drops the last power of a cell; its code and limits are in place when this returns.

        Returns:
            What `Filter.load` does; None without a filter.
        """
        if self._means.confined:
            root.mount_code(confinement.code, confinement.dependencies)
            root.resize_scratch(confinement.scratch)
            socket.sethostname(confinement.hostname)
            os.chdir(root.FUNCTION)
        else:
            _hold_code(confinement, self._rules)
        if self._mounts_as_user:
            privileges.drop_capabilities()  # who stays the same user stays tied to the zygote
        else:
            become(self._belongings.identity, self._means, self._last_capability)
            self._hold_for_good()
        # After that, because a user namespace limits all that is ever below it by what its maker had when it was made.
        for process in (0, self._program):
            if process is not None:
                self._limit(process, confinement)
        return self._lock()

    def practise(self) -> None:
        """Goes the way of `confine` as far as that changes nothing yet, so that the cell has copied the memory that it
        takes before anybody waits for it."""
        if self._mounts_as_user:
            root.practise()
            root.resize_scratch(_CELL_SCRATCH)
            socket.sethostname(socket.gethostname())
            os.chdir("/")
            rlimits.practise()

    def fork(self, child: Callable[[], NoReturn]) -> int:
        """Forks a process that loses all power first, then runs ``child``: what starts before there is code.

        It sees what the cell sees, code that is mounted later too, and `confine` sets its limits from outside.

        Returns:
            The child's process id.
        """
        pid = namespaces.fork(lambda: self._run(child))
        self._program = pid
        # The cell must reach the program, which is behind its own wall already, with signals.
        if self._rules is not None:
            self._rules.close()
        self._rules = rules_for(self._means, self._own, scoped=False)
        return pid

    def _hold_for_good(self) -> None:
        """Ties it to its zygote once more, and for the last time, as it has become another user."""
        self._lifeline.hold()
        self._lifeline.release()

    def _run(self, child: Callable[[], NoReturn]) -> NoReturn:
        try:
            self._lifeline.release()
            become(self._belongings.identity, self._means, self._last_capability)
            self._lock()
            child()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _limit(self, process: int, confinement: Confinement) -> None:
        _spread(process, confinement.every_cpu)
        shared = self._means.users is Users.SHARED
        processes = None if shared else confinement.processes
        rlimits.apply(confinement.open_files, confinement.scratch, processes, process)

    def _lock(self) -> int | None:
        """The last steps: what comes before needs files and calls that they refuse."""
        if self._rules is not None:
            self._rules.enforce()
        return None if self._filter is None else self._filter.load()


def become(identity: int, means: Means, last_capability: int) -> None:
    """Becomes the user of a sandbox, without any power, as far as the host lets it."""
    if means.users is Users.OWN:
        privileges.become(identity)
        return
    if means.users is Users.NESTED:
        users.nest(identity)
        privileges.empty_bounding_set(last_capability)
    privileges.drop_capabilities()


def join(cgroups: Iterable[int]) -> None:
    """Moves the process into the cgroup with these doors."""
    for door in cgroups:
        os.write(door, b"0")


def rules_for(
    means: Means, own: Mapping[str, Access] | None = None, *, scoped: bool = True
) -> Ruleset | None:
    """Returns the rules of Landlock for a sandbox, with what is its alone; None where the kernel has none.

    ``scoped``: see `Ruleset`.
    """
    version = landlock.version()
    if version == 0:
        return None
    rules = Ruleset(version, scoped=scoped)
    allowed = landlock.INSIDE if means.confined else _ACCESS_OUTSIDE
    for path, access in {**allowed, **(own or {})}.items():
        rules.allow(path, access)
    rules.allow(_LOG, landlock.WRITE_FILES)  # which programs open anew, as /dev/stdout
    return rules


def _hold_code(confinement: Confinement, rules: Ruleset | None) -> None:
    held = {_CODE: confinement.code, _DEPENDENCIES: confinement.dependencies}
    for number, package in held.items():
        if package is not None:
            descriptor = os.open(package, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            os.dup2(descriptor, number)
            os.close(descriptor)
            if rules is not None:
                rules.allow(number, landlock.READ)
    os.fchdir(_CODE)


def _spread(process: int, every_cpu: bool) -> None:
    if every_cpu:
        for thread in os.listdir(f"/proc/{process}/task") if process else ["0"]:
            os.sched_setaffinity(int(thread), range(os.cpu_count() or 1))


def _keep_only(belongings: Belongings, lifeline: Lifeline, more: Collection[int]) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(belongings.log, 1)
    os.dup2(belongings.log, 2)
    lowest = 3
    observer = () if belongings.observer is None else (belongings.observer,)
    for kept in sorted((belongings.listener, lifeline.reader, *observer, *more)):
        os.closerange(lowest, kept)
        lowest = kept + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
