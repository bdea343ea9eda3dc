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
_FORK_SECONDS = 10.0
_REPORT_SECONDS = 0.5
"""How long after the end of a fork its exit code may be heard."""


@dataclass(slots=True)
class _Expected:
    """A fork that the template has been asked for; ``forked`` will be its process id."""

    cell: str
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
        self._expected: _Expected | None = None
        self._turn = asyncio.Lock()
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
        async with self._turn:
            self._expected = _Expected(cell, group, asyncio.get_running_loop().create_future())
            try:
                message = json.dumps({"op": "fork", "id": cell}).encode()
                socket.send_fds(self._control, [message], list(descriptors))
                async with asyncio.timeout(_FORK_SECONDS):
                    return await self._expected.forked
            except TimeoutError:
                raise DriverError(f"the template did not fork within {_FORK_SECONDS:g} s") from None
            except OSError as error:
                raise DriverError(f"the template is gone: {error}") from error
            finally:
                self._expected = None

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
            try:
                message = json.loads(line)
            except ValueError:
                self._lose()
                return
            self._hear(message, pid)

    def _hear(self, message: Any, sender: int) -> None:
        expected = self._expected
        match message:
            case {"event": "exited", "id": str(cell), "code": int(code)}:
                self._end(cell, code)
                if expected is not None and expected.cell == cell:
                    self._refuse(f"the fork ended with {code}")
            case {"event": "refused", "error": error}:
                self._refuse(str(error))
            case {"event": "forked", "id": str(cell)} if expected is not None and expected.cell == cell:
                self._take(expected, sender)

    def _take(self, expected: _Expected, pid: int) -> None:
        if expected.forked.done():
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._refuse(f"the fork is gone: {error}")
            return
        # What lives after this look was there before it: the process id was nobody else's meanwhile.
        if not expected.group.holds(pid) or _has_ended(pidfd):
            os.close(pidfd)
            self._refuse("the fork is not in its cgroup")
            return
        self._pidfds[expected.cell] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._gone, expected.cell)
        expected.forked.set_result(pid)

    def _refuse(self, why: str) -> None:
        if self._expected is not None and not self._expected.forked.done():
            self._expected.forked.set_exception(DriverError(f"the template did not fork: {why}"))

    def _gone(self, cell: str) -> None:
        """A fork has ended; its parent, the template, is to say how."""
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
            self._refuse("it is gone")


def _has_ended(pidfd: int) -> bool:
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    return bool(end.poll(0))
