"""How a fork of the keeper enters a container that an engine has made, and becomes what runs in it.

A program that starts inside reads and warms all that it needs anew; a fork has it, and shares the memory. The engine
has parted the container from the host, and its first process only waits (`pause`). What an engine does to a process
before it has it run a program is done here, in the order that leaves nothing of the host in its hands.
"""

from __future__ import annotations

import gc
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from martlet.sandbox import inside, privileges, syscalls
from martlet.sandbox.inside import Task
from martlet.sandbox.launcher import join
from martlet.sandbox.namespaces import PidNamespaces
from martlet.sandbox.syscalls import Clone

_PARTS = Clone.MOUNT | Clone.IPC | Clone.UTS | Clone.NETWORK
_OWN_PROFILE = Path("/proc/self/attr/current")


@dataclass(frozen=True, slots=True)
class Entrant:
    """What one of them has of its own.

    Attributes:
        identity: its user and group.
        log: where it prints.
        cgroups: the doors of its cgroups.
    """

    identity: int
    log: int
    cgroups: Sequence[int]


class Entrance:
    """What runs in containers, warm, to be forked into each.

    Args:
        task: what that is.
        profile: of AppArmor; empty: there is none.
    """

    def __init__(self, task: Task, profile: str) -> None:
        self._task, self._profile = task, profile
        self._last_capability = privileges.last_capability()
        self._forks = PidNamespaces()
        self._module = inside.load(task)
        gc.collect()
        gc.freeze()

    def fork(self, first: int, entrant: Entrant, fail: Callable[[OSError], None]) -> int:
        """Forks what runs in a container.

        Args:
            first: the process of the container, a child, which waits.
            entrant: what it has.
            fail: called in the fork where the container cannot be entered.

        Returns:
            The id of the fork.

        Raises:
            OSError: the container has ended, or there is no more room for processes.
        """
        container = os.pidfd_open(first)
        try:
            return self._forks.fork_into(container, lambda: self._be_inside(container, entrant, fail))
        finally:
            os.close(container)

    def _be_inside(self, container: int, entrant: Entrant, fail: Callable[[OSError], None]) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                self._enter(container, entrant)
            except OSError as error:
                fail(error)
                os._exit(1)
            inside.serve(self._task, self._module)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _enter(self, container: int, entrant: Entrant) -> None:
        join(entrant.cgroups)
        nothing = os.open("/dev/null", os.O_RDONLY)
        syscalls.setns(container, _PARTS)
        os.chdir("/")
        os.setsid()
        if self._profile:
            _OWN_PROFILE.write_text(f"changeprofile {self._profile}")
        privileges.forbid_new_privileges()
        privileges.empty_bounding_set(self._last_capability)
        privileges.become(entrant.identity)
        for number, descriptor in enumerate((nothing, entrant.log, entrant.log)):
            os.dup2(descriptor, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
