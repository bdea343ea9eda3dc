"""The sandbox of a cell, step by step. What is dropped here never comes back.

`Sandbox.expect` says whom the next cell is for, and `Sandbox.enter` takes the cell in before it has code, by the steps
of `entrance`, which leave it the power that `confine` needs; `Sandbox.begin` goes the first of them ahead.
`Sandbox.confine` runs when the cell becomes an instance, and ends before the first byte of the user's code is read.
`Sandbox.fork` is for a program that starts before there is code: it never has any power. `Sandbox.fork_elsewhere` takes
one in that is forked from something that runs already.
All take the same steps whether the zygote is root on the host or in a user namespace; a host may lack what some of
them need (`Means`), and then it was agreed to go without (relaxed).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol

from martlet.sandbox import landlock, namespaces, privileges, root, users
from martlet.sandbox.confining import Confining
from martlet.sandbox.entrance import Entrance, House, Kind, beginning
from martlet.sandbox.landlock import Access, Ruleset
from martlet.sandbox.means import Means, Users
from martlet.sandbox.script import Run, Script, Slot
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.syscalls import Clone

_LOG = 1
_ACCESS_OUTSIDE = {
    **dict.fromkeys(root.SYSTEM, landlock.READ),
    **dict.fromkeys(("/etc", "/proc", "/run/systemd/resolve", sys.base_prefix), landlock.READ),
    **dict.fromkeys((f"/dev/{device}" for device in root.DEVICES), landlock.WRITE_FILES),
    **dict.fromkeys(("/dev/shm", root.SCRATCH), landlock.ALL),  # noqa: S108
    "/proc/self": landlock.WRITE_FILES,
}
_LATE = frozenset({"mount", "prctl", "sethostname", "setns", "umount2", "unshare"})
_CODE, _DEPENDENCIES = 98, 99
UNCONFINED_CODE = f"/proc/self/fd/{_CODE}"
UNCONFINED_DEPENDENCIES = f"/proc/self/fd/{_DEPENDENCIES}"
"""Where an instance without a private root finds its packages: their folder is not open to its user."""


def is_late(call: str | None) -> bool:
    """Whether a zygote makes a call, or a cell until it has code, that no function may make, or not as freely."""
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


class Elsewhere(Protocol):
    """Who forks a process from another one than this, and has it make system calls first."""

    def lend(self, descriptor: int) -> int:
        """Lends it a descriptor of this process. Returns the number that it has there."""

    def run(self, script: Script) -> None:
        """Adds the calls of a script, as they are now; lent numbers are in its slots."""

    def fork(self) -> int:
        """Has it forked into the PID namespace of this process; returns its id once it has made the calls.

        Raises:
            OSError: there is nobody to fork from, or a call has failed.
        """


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
    """What cells are confined by: the zygote has one, and of that each cell its copy.

    Args:
        house: what cells enter.
        means: what the host gives.
        last_capability: the highest that the kernel knows.
        filter: of system calls, what of it cells load when they get code; None where they are not filtered.
    """

    def __init__(self, house: House, means: Means, last_capability: int, filter: Filter | None) -> None:  # noqa: A002
        self._house = house
        self._means = means
        self._last_capability = last_capability
        self._confining = Confining(house.numbers, filter)
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.listener = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._beginning, self._begun = beginning(house), False
        self._entrances: dict[Kind, Entrance] = {}
        self._entrance: Entrance | None = None
        self._taking_in = _TakingIn(house, last_capability)
        self._identity = 0
        self._rules: Ruleset | None = None
        self._program: int | None = None

    def close_behind_zygote(self) -> None:
        """In the zygote: takes from it, and from all that it forks, the calls that neither needs. Raises OSError."""
        if self._house.filter is not None:
            privileges.forbid_new_privileges()
            self._house.filter.load()

    def begin(self) -> None:
        """In a process that is to be a cell, before it is known whose: moves it into its sandbox as far as it can be.

        Raises:
            OSError: a step was refused.
        """
        self._beginning.run()
        self._begun = True

    def expect(self, belongings: Belongings) -> None:
        """In the zygote, or in a process that has begun: fills in whom the next cell is for."""
        kind = Kind(
            belongings.network, belongings.namespace is not None, len(belongings.cgroups), belongings.observer
        )
        entrance = self._entrances.get(kind)
        if entrance is None:
            entrance = Entrance(self._house, self._beginning, kind, self.listener, self._nothing)
            self._entrances[kind] = entrance
        entrance.listener.value, entrance.log.value = belongings.listener, belongings.log
        entrance.identity.value, entrance.namespace.value = belongings.identity, belongings.namespace or 0
        for door, descriptor in zip(entrance.doors, belongings.cgroups, strict=True):
            door.value = descriptor
        self._entrance, self._identity = entrance, belongings.identity

    def enter(self, run: Run = Script.run) -> None:
        """In the cell, first of all: moves it into its sandbox; the zygote's bounding set is empty. Raises OSError.

        ``run``: see `Run`.
        """
        assert self._entrance is not None
        self._entrance.go(begun=self._begun, run=run)
        if landlock.version():
            self._rules = Ruleset(landlock.version(), made=self._house.ruleset)

    def confine(self, confinement: Confinement, run: Run = Script.run) -> int | None:
        """Drops the last power of a cell; its code and limits are in place when this returns.

        Args:
            confinement: what the cell gets.
            run: see `Confining`; to rehearse takes a house whose cells mount as their user.

        Returns:
            What `Filter.load` does; None without a filter.
        """
        if self._means.confined:
            code, dependencies, hostname, scratch, *_ = confinement
            self._confining.show(code, dependencies, scratch, hostname, run)
        else:
            _hold_code(confinement, self._rules)
        if self._house.mounts_as_user:
            self._confining.drop_power(run)  # who stays the same user stays tied to the zygote
        else:
            become(self._identity, self._means, self._last_capability)
            self._hold_for_good()
        # After that, because a user namespace limits all that is ever below it by what its maker had when it was made.
        for process in (0, self._program):
            if process is not None:
                self._limit(process, confinement, run)
        return self._lock(run)

    def fork(self, child: Callable[[], NoReturn]) -> int:
        """Forks a process that loses all power first, then runs ``child``: what starts before there is code.

        It sees what the cell sees, code that is mounted later too, and `confine` sets its limits from outside.

        Returns:
            The child's process id.
        """
        pid = namespaces.fork(lambda: self._run(child))
        self._program = pid
        self._begin_alone()
        return pid

    def fork_elsewhere(self, elsewhere: Elsewhere) -> int:
        """As `fork`, with a process that is forked by somebody else; it goes the steps of the cell and those of `fork`.

        Returns:
            The id of the process. Raises OSError as `Elsewhere.fork`.
        """
        assert self._entrance is not None
        doors, own = self._entrance.kept_doors, os.pidfd_open(os.getpid())
        try:
            self._taking_in.add(elsewhere, doors, own, self._identity)
            rules = None if self._rules is None else elsewhere.lend(self._rules.descriptor)
            elsewhere.run(self._confining.lock_by(rules))
            pid = self._program = elsewhere.fork()
        finally:
            os.close(own)
        self._begin_alone()
        return pid

    def _begin_alone(self) -> None:
        """Lets go of what was there for the program, which is behind its own wall."""
        assert self._entrance is not None
        for door in self._entrance.kept_doors:
            os.close(door)
        # The cell must reach the program with signals.
        if self._rules is not None:
            self._rules.close()
        self._rules = rules_for(self._house.rules, scoped=False)

    def _hold_for_good(self) -> None:
        """Ties it to its zygote once more, and for the last time, as it has become another user."""
        self._house.lifeline.hold()
        self._house.lifeline.release()

    def _run(self, child: Callable[[], NoReturn]) -> NoReturn:
        try:
            self._house.lifeline.release()
            become(self._identity, self._means, self._last_capability)
            self._lock()
            child()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _limit(self, process: int, confinement: Confinement, run: Run) -> None:
        _spread(process, confinement.every_cpu)
        shared = self._means.users is Users.SHARED
        processes = None if shared else confinement.processes
        self._confining.limit(confinement.open_files, confinement.scratch, processes, process, run)

    def _lock(self, run: Run = Script.run) -> int | None:
        """The last steps: what comes before needs files and calls that they refuse."""
        return self._confining.lock(None if self._rules is None else self._rules.descriptor, run)


class Forks:
    """What a module forks the program by that it starts before there is code."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __call__(self, child: Callable[[], NoReturn]) -> int:
        """See `Sandbox.fork`."""
        return self._sandbox.fork(child)

    def elsewhere(self, elsewhere: Elsewhere) -> int:
        """See `Sandbox.fork_elsewhere`."""
        return self._sandbox.fork_elsewhere(elsewhere)


class _TakingIn:
    """How a process that is nobody's comes into a sandbox that is there: where a cell is root on the host alone."""

    def __init__(self, house: House, last_capability: int) -> None:
        self._numbers = house.numbers
        self._identity = Slot()
        self._power = Script(house.numbers)
        privileges.empty_bounding_set(last_capability, self._power)
        privileges.forbid_new_privileges(self._power)
        privileges.become_by(self._power, self._identity)
        if house.filter is not None:
            house.filter.load_by(self._power)

    def add(self, elsewhere: Elsewhere, doors: Iterable[int], cell: int, identity: int) -> None:
        """Adds the steps.

        Args:
            elsewhere: to what.
            doors: of its cgroups.
            cell: a pidfd of the first process there.
            identity: user and group id.
        """
        script = Script(self._numbers)
        for door in doors:
            script.call("write", elsewhere.lend(door), b"0", 1)
        script.call("setns", elsewhere.lend(cell), namespaces.OWN | Clone.NETWORK)
        script.call("setsid")  # as it is of the session and the group of the zygote
        self._identity.value = identity
        elsewhere.run(script)
        elsewhere.run(self._power)


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


def allowed(means: Means, own: Mapping[str, Access]) -> dict[str, Access]:
    """Returns what may be done with which files in a sandbox, with what is its alone; its log comes to that."""
    return {**(landlock.INSIDE if means.confined else _ACCESS_OUTSIDE), **own}


def rules_for(access: Mapping[str, Access], *, scoped: bool = True) -> Ruleset | None:
    """Returns the rules of Landlock that allow this, and to write to the log; None where the kernel has none.

    ``scoped``: see `Ruleset`.
    """
    version = landlock.version()
    if version == 0:
        return None
    rules = Ruleset(version, scoped=scoped)
    for place, what in access.items():
        rules.allow(place, what)
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
