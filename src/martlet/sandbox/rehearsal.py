"""Tries on this host what a sandbox needs, in throw-away children, and says what the kernel refused.

What is tried takes `Means`: as root, in a user namespace, or what is left where neither is allowed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from martlet.sandbox import landlock, network, privileges, syscalls, users
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.means import Means, Users
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone, Mount, MountAttribute

USER_NAMESPACE = "user namespace"
FILES = "files"
PROCESSES = "processes"
PROC = "/proc"
SHARED_MEMORY = "shared memory"
HOST_NAME = "host name"
NETWORK = "network"
USER = "user"
PRIVILEGES = "privileges"
CALLS = "system calls"
LANDLOCK = "Landlock"
ALONE = frozenset({CALLS, LANDLOCK})
"""What holds or does not, whatever else sandboxes are made of."""

Step = Callable[[], None]


def steps(means: Means, identity: int) -> dict[str, Step]:
    """Returns what must succeed for sandboxes of these means, by name.

    Args:
        means: what the host is supposed to give.
        identity: the user id that a cell would get.
    """
    confined: dict[str, Step] = {
        FILES: _private_root,
        PROCESSES: lambda: syscalls.unshare(Clone.PID),
        PROC: _own_proc,
        SHARED_MEMORY: lambda: syscalls.unshare(Clone.IPC),
        HOST_NAME: lambda: syscalls.unshare(Clone.UTS),
        NETWORK: lambda: network.enter(network.NONE),
    }
    own_user: dict[str, Step] = {USER: partial(_own_user, means, identity)}
    return (
        (confined if means.confined else {})
        | (own_user if means.users is not Users.SHARED else {})
        | {PRIVILEGES: _no_privileges, LANDLOCK: _restricted_files, CALLS: _filtered_calls}
    )


def rehearse(means: Means, identity: int) -> dict[str, str]:
    """Returns the names of the `steps` that fail on this host, each with the kernel's words.

    Where there can be no user namespace, that is the only name. The process must have one thread only: it forks.
    """

    def enter() -> None:
        if means.ids is not None:
            users.enter(means.ids)

    def attempt(step: Step) -> None:
        enter()
        step()

    if words := _refusal(enter):
        return {USER_NAMESPACE: words}

    refusals = {name: _refusal(partial(attempt, step)) for name, step in steps(means, identity).items()}
    return {name: words for name, words in refusals.items() if words}


def _refusal(step: Step) -> str:
    """Returns what the kernel says to a step in a child of its own; nothing when it succeeds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            step()
        except OSError as error:
            os.write(writer, (error.strerror or str(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as said:
        words = said.read().decode()
    os.waitpid(pid, 0)
    return words


def _private_root() -> None:
    syscalls.unshare(Clone.MOUNT)
    syscalls.make_private()
    syscalls.mount("tmpfs", "/tmp", Mount.NO_SUID | Mount.NO_DEV)  # noqa: S108  (in a namespace of its own)
    syscalls.mount_setattr("/tmp", MountAttribute.READ_ONLY)  # noqa: S108


def _own_proc() -> None:
    syscalls.unshare(Clone.MOUNT | Clone.PID)
    syscalls.make_private()
    if words := _refusal(
        lambda: syscalls.mount("proc", "/proc", Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC)
    ):
        raise OSError(words)


def _filtered_calls() -> None:
    privileges.forbid_new_privileges()
    Filter(Policy.load()).load()
    with suppress(PermissionError):
        syscalls.unshare(Clone(0))  # nothing, which everybody may do
        raise OSError("a system call that the filter refuses was made")


def _restricted_files() -> None:
    if (version := landlock.version()) == 0:
        raise OSError("the kernel does not have it in use")
    privileges.forbid_new_privileges()
    rules = Ruleset(version)
    rules.allow("/", landlock.READ)
    rules.enforce()
    with suppress(PermissionError), open("/dev/null", "wb"):
        raise OSError("a file that no rule allows was written to")


def _own_user(means: Means, identity: int) -> None:
    if means.users is Users.NESTED:
        users.nest(identity)
    else:
        privileges.become(identity)
    if not means.confined:
        os.listdir(os.path.dirname(os.__file__))
        os.listdir(os.path.dirname(__file__))


def _no_privileges() -> None:
    privileges.forbid_new_privileges()
    privileges.drop_capabilities()


def main(candidates: str) -> None:
    """Rehearses one after the other until only what stands `ALONE` is refused; writes a list of what was, as JSON.

    Args:
        candidates: JSON: a list of pairs of `Means` and identity.
    """
    refusals: list[dict[str, str]] = []
    for means, identity in json.loads(candidates):
        refusals.append(rehearse(Means.from_json(means), identity))
        if refusals[-1].keys() <= ALONE:
            break
    json.dump(refusals, sys.stdout)
