"""The lane's end of a template: has it fork instances, knows them for sure, hears of those that end.

A template runs the user's code, so nothing that it says is believed: the kernel names the process that says it is a
fork, which must be in the cgroup that was made for it, and its end is what its `pidfd` tells.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from martlet.drivers.driver import DriverError
from martlet.sandbox.cgroups import Group, Limits

OnEnd = Callable[[str, int, None], None]
"""Called with the id of a fork that has ended, its exit code, and nothing more that is known."""

_CREDENTIALS = struct.Struct("3i")
_RECEIVE_BYTES = 64 * 1024
_FORKS_IN_FLIGHT = 32
_FORK_SECONDS = 10.0
_REPORT_SECONDS = 0.5
"""How long after the end of a fork its exit code may be heard."""


@dataclass(slots=True)
class _Expected:
    """A fork that the template has been asked for; ``forked`` will be its process id."""

    group: Group
    forked: asyncio.Future[int]


class Template:
    """One template and its living forks. Make one with `connect`.

    Attributes:
        limits: those of each fork.
    """

    def __init__(self, control: socket.socket, limits: Limits, on_end: OnEnd) -> None:
        self._control = control
        self.limits = limits
        self._on_end = on_end
        self._pidfds: dict[str, int] = {}
        self._due = 0
        self._expected: dict[str, _Expected] = {}
        # Together they wait for their cgroups once; more would overrun the kernel's bound on descriptors in flight.
        self._room = asyncio.Semaphore(_FORKS_IN_FLIGHT)
        self._connected = True
        asyncio.get_running_loop().add_reader(control, self._receive)

    @classmethod
    def connect(cls, at: str, limits: Limits, on_end: OnEnd) -> Self:
        """Connects to the cell that listens at ``at`` and was specialised as a template.

        Raises:
            OSError: it does not listen any more.
        """
        control = socket.socket(socket.AF_UNIX)
        try:
            control.setblocking(False)
            control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            control.connect(at)
        except OSError:
            control.close()
            raise
        return cls(control, limits, on_end)

    async def fork(self, cell: str, group: Group, descriptors: Sequence[int]) -> int:
        """Forks an instance that gets ``descriptors`` (listener, log, doors of ``group``). Returns its process id.

        Raises:
            DriverError: it could not; the message says why.
        """
        async with self._room:
            forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._expected[cell] = _Expected(group, forked)
            self._due += 2  # messages: that it is there, and that it has ended
            try:
                message = json.dumps({"op": "fork", "id": cell}).encode()
                socket.send_fds(self._control, [message], list(descriptors))
                async with asyncio.timeout(_FORK_SECONDS):
                    return await forked
            except TimeoutError:
                raise DriverError(f"the template did not fork within {_FORK_SECONDS:g} s") from None
            except OSError as error:
                raise DriverError(f"the template is gone: {error}") from error
            finally:
                del self._expected[cell]

    async def signal(self, cell: str, number: signal.Signals) -> bool:
        """Sends a signal to a fork. Returns False where there is no such fork any more."""
        if cell not in self._pidfds:
            return False
        try:
            signal.pidfd_send_signal(self._pidfds[cell], number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Lets go of the template, which has ended, and with it all of its forks."""
        self._lose()
        for cell in list(self._pidfds):
            self._end(cell, -signal.SIGKILL)

    def _receive(self) -> None:
        # Room for the credentials of the sender and no more: descriptors that it might send do not come in.
        data, ancillary, _, _ = self._control.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
        if not data or not ancillary:
            self._lose()
            return
        pid, _, _ = _CREDENTIALS.unpack(ancillary[0][2])
        for line in data.splitlines():
            self._due -= 1
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if self._due < 0 or message is None:
                self._lose()
                return
            self._hear(message, pid)

    def _hear(self, message: Any, sender: int) -> None:
        match message:
            case {"event": "forked", "id": str(cell)}:
                self._take(cell, sender)
            case {"event": "refused", "id": str(cell), "error": error}:
                self._refuse(cell, str(error))
            case {"event": "exited", "id": str(cell), "code": int(code)}:
                self._end(cell, code)
                self._refuse(cell, f"the fork ended with {code}")

    def _take(self, cell: str, pid: int) -> None:
        expected = self._expected.get(cell)
        if expected is None or expected.forked.done():
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._refuse(cell, f"the fork is gone: {error}")
            return
        # What lives after this look was there before it: the process id was nobody else's meanwhile.
        if not expected.group.holds(pid) or _has_ended(pidfd):
            os.close(pidfd)
            self._refuse(cell, "the fork is not in its cgroup")
            return
        self._pidfds[cell] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._gone, cell)
        expected.forked.set_result(pid)

    def _refuse(self, cell: str, why: str) -> None:
        expected = self._expected.get(cell)
        if expected is not None and not expected.forked.done():
            expected.forked.set_exception(DriverError(f"the template did not fork: {why}"))

    def _gone(self, cell: str) -> None:
        """A fork has ended; its parent, the template, is to say how."""
        if cell not in self._pidfds:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfds[cell])
        loop.call_later(_REPORT_SECONDS if self._connected else 0, self._end, cell, -signal.SIGKILL)

    def _end(self, cell: str, code: int) -> None:
        pidfd = self._pidfds.pop(cell, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
            self._on_end(cell, code, None)

    def _lose(self) -> None:
        if self._connected:
            self._connected = False
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
            for cell in self._expected:
                self._refuse(cell, "it is gone")


def _has_ended(pidfd: int) -> bool:
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(0))
