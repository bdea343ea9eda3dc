"""What the process rung promises to hold, and what there is to say where this host does not let it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from martlet.drivers.driver import Guarantee, State
from martlet.drivers.subordinate import NotLent
from martlet.sandbox import rehearsal
from martlet.sandbox.cgroups import CONTROLLERS, Group
from martlet.sandbox.means import Means, Users

PROMISES = {
    rehearsal.FILES: "functions see a root of their own, and no file of this machine or of each other",
    rehearsal.PROCESSES: "functions see and signal their own processes only, and these end with them",
    rehearsal.PROC: "/proc shows functions themselves, and nothing of this machine's processes",
    rehearsal.SHARED_MEMORY: "functions share no memory segments or queues with this machine or each other",
    rehearsal.HOST_NAME: "functions neither see nor set the name of this machine",
    rehearsal.NETWORK: "functions reach themselves only, but for those that are given the machine's network",
    rehearsal.USER: "each instance runs as a user and group that nobody else on this machine has",
    rehearsal.PRIVILEGES: "functions have no capability, and nothing that they execute gives them one",
    rehearsal.CALLS: "functions make only the system calls that ordinary programs need",
    rehearsal.LANDLOCK: "a second wall parts functions from files, behind the first",
}
_KERNELS = {
    rehearsal.CALLS: "use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",
    rehearsal.LANDLOCK: "start a kernel of 5.13 or newer with landlock in its lsm= list",
}
"""What takes no power but a kernel that has it, and which that is."""
_NEEDED = frozenset(PROMISES) - {rehearsal.LANDLOCK}
"""What ``strict`` takes: all but a wall behind another that stands."""
LIMITS = "limits"
_LIMITS_PROMISE = "memory, CPU and processes of each instance have a limit"
_SWITCHES = (
    ("user/max_user_namespaces", "0", "15000"),
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
)
"""Settings of the kernel below /proc/sys, the value that forbids user namespaces, and one that does not."""


def of_sandbox(means: Means, refused: dict[str, str], not_lent: NotLent | None) -> list[Guarantee]:
    """Returns what holds in sandboxes.

    Args:
        means: what they are made of.
        refused: what was refused to them, and to the best that was tried in vain, by name of the step.
        not_lent: why this user has no ids of its own to give to sandboxes, if that is so.
    """
    return [_guarantee(name, means, refused, not_lent) for name in PROMISES]


def without_interpreter(error: OSError) -> list[Guarantee]:
    """Returns what holds where not even the interpreter of sandboxes starts: nothing."""
    remedy = "repair the Python that Martlet was installed with"
    return [
        Guarantee(name, promise, State.MISSING, f"the interpreter does not start: {error}", remedy)
        for name, promise in PROMISES.items()
    ]


def of_cgroups(group: Group | None, found: Sequence[Group]) -> Guarantee:
    """Returns whether limits hold: in ``group``, or in none of those that were found."""
    if group is not None:
        return Guarantee(LIMITS, _LIMITS_PROMISE, State.HELD, f"cgroups below {group}")
    if not found:
        why = f"there is no cgroup hierarchy with {', '.join(CONTROLLERS)} for this process"
    else:
        why = f"{' and '.join(map(str, found))} cannot be written to"
    if os.geteuid() == 0:
        remedy = "in a container, give it the cgroup filesystem writable"
    else:
        remedy = (
            "start Martlet in a cgroup that belongs to its user: systemd-run --user --scope -p Delegate=yes martlet "
            "serve, or Delegate=yes in its unit (all of memory, pids and cpu must be delegated)"
        )
    return Guarantee(LIMITS, _LIMITS_PROMISE, State.MISSING, why, remedy)


def _guarantee(name: str, means: Means, refused: dict[str, str], not_lent: NotLent | None) -> Guarantee:
    if name == rehearsal.USER and means.users is not Users.SHARED:
        return _user(means, refused, not_lent)
    if name in _KERNELS:
        if name not in refused:
            return Guarantee(name, PROMISES[name], State.HELD, "as any user", needed=name in _NEEDED)
        state = State.MISSING if name in _NEEDED else State.WEAKER
        return Guarantee(name, PROMISES[name], state, refused[name], _KERNELS[name], needed=name in _NEEDED)
    if means.confined or name == rehearsal.PRIVILEGES:
        return Guarantee(name, PROMISES[name], State.HELD, _how(means))
    words = refused.get(rehearsal.USER_NAMESPACE) or refused.get(name) or "the rest of the sandbox is missing"
    return Guarantee(name, PROMISES[name], State.MISSING, words, _remedy(refused))


def _user(means: Means, refused: dict[str, str], not_lent: NotLent | None) -> Guarantee:
    promise = PROMISES[rehearsal.USER]
    if means.users is Users.OWN:
        return Guarantee(rehearsal.USER, promise, State.HELD, _how(means))
    reason = not_lent or "; ".join(refused.values())
    if not_lent is not None:
        remedy = not_lent.remedy
    elif os.geteuid() == 0:
        remedy = "run Martlet with CAP_SETUID and CAP_SETGID"
    else:
        remedy = (
            "let newuidmap and newgidmap map what /etc/subuid and /etc/subgid lend: they must be setuid root"
        )
    why = (
        "inside, each instance is a user of its own; to this machine they are all the user of the platform, and "
        f"nothing but namespaces parts them from what that user may do: {reason}"
    )
    return Guarantee(rehearsal.USER, promise, State.WEAKER, why, remedy)


def _how(means: Means) -> str:
    if means.ids is None:
        return "as root" if os.geteuid() == 0 else "as any user"
    return "in a user namespace"


def _remedy(refused: dict[str, str]) -> str:
    if rehearsal.USER_NAMESPACE in refused:
        for name, forbidding, allowing in _SWITCHES:
            setting = Path("/proc/sys", name)
            if setting.exists() and setting.read_text().strip() == forbidding:
                return f"run Martlet as root, or allow user namespaces: sysctl {name.replace('/', '.')}={allowing}"
        return (
            "run Martlet as root, or allow user namespaces; in a container both take a security profile that lets "
            "unshare and mount pass, or CAP_SYS_ADMIN"
        )
    if set(refused) == {rehearsal.PROC}:
        covered = ", ".join(_covered()) or "not to be seen from here"
        return (
            "run Martlet as root with CAP_SYS_ADMIN, or leave /proc uncovered: the kernel mounts no new one where "
            f"parts of the old one are hidden, as container engines do (here: {covered}). docker run --security-opt "
            "systempaths=unconfined, podman run --security-opt unmask=ALL"
        )
    if os.geteuid() == 0:
        return "it takes Linux 5.12 or newer, and in a container CAP_SYS_ADMIN"
    return "it takes Linux 5.14 or newer; AppArmor or a container's security profile may forbid it too"


def _covered() -> list[str]:
    """Returns what is mounted below /proc."""
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted({place for place in places if place.startswith("/proc/")})
