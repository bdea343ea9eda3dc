"""What the host holds for a container: a folder with socket and log, a user id, and the process that is watched.

directory/  sock   the socket, moved here as soon as the container has made it
log    the FIFO that it prints to
door/  the container's ``/.martlet``: the user's until the socket is there, then root's and empty
code/  its ``/.code``: empty folders, over which code is mounted inside of the container only
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from martlet.drivers import door
from martlet.drivers.docker.verification import group_of
from martlet.drivers.driver import DriverError
from martlet.drivers.held import LOG, Held
from martlet.model import Network
from martlet.sandbox import inside
from martlet.sandbox.cgroups import Group, Limits, Usage

DOOR, CODE = "door", "code"


class Cell(Held):
    """A container, as a cell or as the instance it became.

    Attributes:
        container: its id at the engine, or its name while that is making it.
        group: the cgroup that the engine has made.
        limits: those that hold.
        network: what it has of the network; None where that does not matter any more.
        used: whether it has been given code.
        making: what makes and starts the container.
        out_of_memory: how many processes the kernel had ended for memory when it was over.
    """

    def __init__(
        self,
        driver: str,
        id: str,  # noqa: A002
        runtime: str,
        directory: Path,
        identity: int,
        container: str,
        image: str | None = None,
    ) -> None:
        super().__init__(driver, id, runtime, directory, identity, image)
        self.container = container
        self.group: Group | None = None
        self.limits: Limits | None = None
        self.network: Network | None = None
        self.used = False
        self.making: asyncio.Task[None] | None = None
        self.out_of_memory = 0
        self._pidfd: int | None = None

    @property
    def state(self) -> dict[str, Any]:
        """See `Held`."""
        return super().state | {"container": self.container}

    @property
    def door(self) -> Path:
        """The folder that it shares with the lane."""
        return self.directory / DOOR

    @property
    def code(self) -> Path:
        """The folder that code is mounted in."""
        return self.directory / CODE

    def make_folders(self) -> None:
        """Makes what the container is shown. Raises OSError."""
        for name in ("function", "dependencies"):
            (self.code / name).mkdir(parents=True)
        door.make(self.door, self.identity)
        log = self.directory / LOG
        os.mkfifo(log, 0o600)
        os.link(log, self.door / inside.LOG)
        os.chown(log, self.identity, self.identity)

    def watch(self, pid: int, on_end: Callable[[Cell], None]) -> None:
        """Holds the first process of the container, and calls ``on_end`` once it is gone.

        Raises:
            OSError: it is gone already.
            DriverError: that is not the process of this container: the engine sees other processes than this machine.
        """
        self._pidfd = os.pidfd_open(pid)
        if self.container not in Path(f"/proc/{pid}/cgroup").read_text():
            raise DriverError(
                f"process {pid} is none of the container's: the engine runs on another machine, or in a PID namespace "
                "of its own. Run Martlet where the engine runs"
            )
        self.pid, self.group = pid, group_of(pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._end, on_end)

    async def open_door(self, patience: float) -> None:
        """Waits until the container answers, for so many seconds, takes its socket out of the door, and closes that.

        Raises:
            DriverError: it does not.
        """
        self.conversation = await door.greet(self.door, self.socket, patience, lambda: self.over)
        (self.door / inside.LOG).unlink(missing_ok=True)
        os.chown(self.directory / LOG, 0, 0)
        # The container opens /dev/stdout as whoever it is; nobody else gets through the folder.
        (self.directory / LOG).chmod(0o622)

    @property
    def over(self) -> bool:
        """Whether its first process was there and is gone."""
        return self.pid is not None and self._pidfd is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its first process, with which all others end, without the engine."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def usage(self) -> Usage | None:
        """Returns what it uses, or what it had come to; None where that is not to be known."""
        usage = None if self.group is None else self.group.usage()
        if usage is None:
            return Usage(0, 0.0, 0, self.out_of_memory) if self.over else None
        return usage._replace(oom_kills=max(usage.oom_kills, self.out_of_memory))

    def _end(self, on_end: Callable[[Cell], None]) -> None:
        # Now or never: the engine is about to remove the cgroup.
        usage = self.usage()
        self.out_of_memory = usage.oom_kills if usage is not None else 0
        self.let_go()
        on_end(self)

    def let_go(self) -> None:
        """Stops watching."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
