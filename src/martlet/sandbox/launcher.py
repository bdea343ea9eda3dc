"""The sandbox of a cell, step by step. What is dropped here never comes back.

`enter` runs before the cell has code, off the request path, and leaves it the power that `confine` needs.
`confine` runs when the cell becomes an instance, and ends before the first byte of the user's code is read.
Both take the same steps whether the zygote is root on the host or in a user namespace; a host may lack what some of
them need (`Means`), and then it was agreed to go without (relaxed).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from martlet.sandbox import landlock, namespaces, network, privileges, rlimits, root, users
from martlet.sandbox.landlock import Access, Ruleset
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.means import Means, Users
from martlet.sandbox.seccomp.filter import Filter

_CELL_SCRATCH = 1024 * 1024
_LOG = 1
_ACCESS_INSIDE = {
    "/": landlock.READ,
    "/dev": landlock.WRITE_FILES,
    "/proc": landlock.WRITE_FILES,
    root.SCRATCH: landlock.ALL,
}
_ACCESS_OUTSIDE = {
    **dict.fromkeys(root.SYSTEM, landlock.READ),
    **dict.fromkeys(("/etc", "/proc", "/run/systemd/resolve", sys.base_prefix), landlock.READ),
    **dict.fromkeys((f"/dev/{device}" for device in root.DEVICES), landlock.WRITE_FILES),
    **dict.fromkeys(("/dev/shm", root.SCRATCH), landlock.ALL),  # noqa: S108
    "/proc/self": landlock.WRITE_FILES,
}
_CODE, _DEPENDENCIES = 98, 99
UNCONFINED_CODE = f"/proc/self/fd/{_CODE}"
UNCONFINED_DEPENDENCIES = f"/proc/self/fd/{_DEPENDENCIES}"
"""Where an instance without a private root finds its packages: their folder is not open to its user."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What a cell is given, mostly by descriptor.

    Attributes:
        listener: where it takes requests.
        log: where it prints.
        cgroups: the doors of its cgroups.
        network: the name of its network (see `martlet.sandbox.network`).
        namespace: the network namespace that was made for it, where its network is one that somebody makes.
        observer: what it keeps until it is confined, to hand over what is heard of the calls it is denied.
    """

    listener: int
    log: int
    cgroups: Sequence[int]
    network: str
    namespace: int | None = None
    observer: int | None = None


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a cell learns when it gets code; it travels inside the request to specialise.

    Attributes:
        code: name of the package under `root.PACKAGES`; its path on the host where there is no private root.
        dependencies: the same for the package with the dependencies, or None.
        identity: user and group id, this sandbox's alone.
        hostname: what the machine is called inside.
        scratch: bytes that ``/tmp`` may hold.
        open_files: descriptors a process may have.
        processes: processes and threads its user may have; None: what the cgroup allows.
        every_cpu: whether the instance may leave its lane's core.
    """

    code: str
    dependencies: str | None
    identity: int
    hostname: str
    scratch: int
    open_files: int
    processes: int | None
    every_cpu: bool


def enter(belongings: Belongings, lifeline: Lifeline, means: Means, last_capability: int) -> Ruleset | None:
    """Moves a freshly forked process into its sandbox.

    Returns:
        What `confine` holds it to; None where the kernel has no Landlock.
    """
    lifeline.hold()
    join(belongings.cgroups)
    os.setsid()
    if means.confined:
        namespaces.separate()
        network.enter(belongings.network, belongings.namespace)
        if belongings.network == network.HOST:
            root.show_resolvers_of_host()
        root.mount_proc()
        root.mount_scratch(_CELL_SCRATCH)
    privileges.forbid_new_privileges()
    if means.confined:
        privileges.empty_bounding_set(last_capability)
    _keep_only(belongings, lifeline)
    return rules_for(means)


def confine(
    confinement: Confinement,
    lifeline: Lifeline,
    means: Means,
    last_capability: int,
    rules: Ruleset | None,
    filter: Filter | None,  # noqa: A002
) -> int | None:
    """Drops the last power of a cell; its code and limits are in place when this returns.

    Returns:
        What `Filter.load` does; None without a filter.
    """
    if means.confined:
        root.mount_code(confinement.code, confinement.dependencies)
        root.resize_scratch(confinement.scratch)
        socket.sethostname(confinement.hostname)
        os.chdir(root.FUNCTION)
    else:
        _hold_code(confinement, rules)
    _spread(confinement.every_cpu)
    become(confinement.identity, means, last_capability)
    lifeline.hold()
    lifeline.release()
    # After that, because a user namespace limits all that is ever below it by what its maker had when it was made.
    shared = means.users is Users.SHARED
    rlimits.apply(
        confinement.open_files, confinement.scratch, processes=None if shared else confinement.processes
    )
    # The last steps: what comes before needs files and calls that they refuse.
    if rules is not None:
        rules.enforce()
    return None if filter is None else filter.load()


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


def rules_for(means: Means, own: Mapping[str, Access] | None = None) -> Ruleset | None:
    """Returns the rules of Landlock for a sandbox, with what is its alone; None where the kernel has none."""
    version = landlock.version()
    if version == 0:
        return None
    rules = Ruleset(version)
    allowed = _ACCESS_INSIDE if means.confined else _ACCESS_OUTSIDE
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


def _spread(every_cpu: bool) -> None:
    if every_cpu:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _keep_only(belongings: Belongings, lifeline: Lifeline) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(belongings.log, 1)
    os.dup2(belongings.log, 2)
    lowest = 3
    observer = () if belongings.observer is None else (belongings.observer,)
    for kept in sorted((belongings.listener, lifeline.reader, *observer)):
        os.closerange(lowest, kept)
        lowest = kept + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
