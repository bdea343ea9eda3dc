"""The lane's end of a zygote: starts it or finds one that waits, has it fork cells, hears of those that end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import martlet
from martlet.drivers.driver import DriverError
from martlet.model import Network
from martlet.sandbox import channel
from martlet.sandbox.zygote import Plan

OnEnd = Callable[[str, int, str | None], None]
"""Called with the id and the exit code of a cell that ended, and why its sandbox could not be made, if so."""

OnObserved = Callable[[str, int], None]
"""Called with the id of an instance and the descriptor on which its denied calls are heard; it takes that over."""

_BOOTSTRAP = """
import json, sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import zygote
sys.path.remove(sys.argv[1])
zygote.main(int(sys.argv[2]), json.loads(sys.argv[3]))
"""
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
_READY_SECONDS = 20.0
_FIND_SECONDS = 5.0
_END_SECONDS = 5.0
_FORKS_IN_FLIGHT = 32


class Zygote:
    """One zygote and the cells it forked. Make one with `start`, or take one over with `find`.

    Attributes:
        alive: whether it can be talked to.
    """

    def __init__(
        self,
        control: socket.socket,
        on_end: OnEnd,
        on_observed: OnObserved | None = None,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._control = control
        self._process = process
        self._pidfd: int | None = None if process is None else os.pidfd_open(process.pid)
        self._on_end = on_end
        self._on_observed = on_observed
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._failures: dict[str, str] = {}
        self._cells: dict[str, int | None] = {}
        # More would overrun the channel's buffer and the kernel's bound on descriptors in flight.
        self._room = asyncio.Semaphore(_FORKS_IN_FLIGHT)
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self.alive = True
        asyncio.get_running_loop().add_reader(control, self._receive)

    @classmethod
    async def start(
        cls, at: Path, interpreter: Path, plan: Plan, on_end: OnEnd, on_observed: OnObserved | None = None
    ) -> Zygote:
        """Starts a zygote and returns it once it is able to fork.

        Args:
            at: where it is to listen, in a directory that is the platform's alone.
            interpreter: the Python that runs it, without site folder and environment.
            plan: what it becomes.
            on_end: see `OnEnd`; called for every cell, also when all of them end with the zygote.
            on_observed: see `OnObserved`; for a plan whose calls are observed.

        Raises:
            DriverError: it could not be made; the message says why.
        """
        with channel.listen(at) as listener:
            control = channel.connect(at)
            process = _execute(interpreter, listener.fileno(), plan)
        zygote = cls(control, on_end, on_observed, process)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await zygote._ready
        except BaseException as error:
            await zygote.close()
            if isinstance(error, TimeoutError):
                raise DriverError(f"a zygote was not ready within {_READY_SECONDS:g} s") from None
            raise
        return zygote

    @classmethod
    async def find(cls, at: Path, on_end: OnEnd) -> Zygote | None:
        """Takes over a zygote that an earlier life of the lane started; returns None where none answers ``at``."""
        try:
            zygote = cls(channel.connect(at), on_end)
        except OSError:
            return None
        try:
            async with asyncio.timeout(_FIND_SECONDS):
                await zygote._ready
        except (TimeoutError, DriverError):
            await zygote.close()
            return None
        except BaseException:
            await zygote.close()
            raise
        return zygote

    @property
    def cells(self) -> dict[str, int]:
        """The process ids of the living cells."""
        return {cell: pid for cell, pid in self._cells.items() if pid is not None}

    async def fork(self, cell: str, network: Network, identity: int, descriptors: Sequence[int]) -> int:
        """Forks a cell of this user that gets ``descriptors`` (listener, log, namespace of egress, cgroup doors).

        Returns:
            Its process id.

        Raises:
            DriverError: the kernel refused, or the zygote is gone.
        """
        async with self._room:
            forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self._forks[cell] = forked
            try:
                message = {"op": "fork", "id": cell, "network": network, "identity": identity}
                await self._send(message, descriptors)
                self._cells.setdefault(cell, None)
                return await forked
            finally:
                del self._forks[cell]

    async def signal(self, cell: str, number: signal.Signals) -> bool:
        """Sends a signal to a cell. Returns False where there is no such cell any more."""
        if cell not in self._cells:
            return False
        try:
            await self._send({"op": "signal", "id": cell, "signal": number})
        except DriverError:
            return False
        return True

    async def close(self) -> None:
        """Ends the zygote and all of its cells."""
        if self._pidfd is not None and self.alive:
            _kill(self._pidfd)
        self._lose()
        assert self._waiting is not None
        await self._waiting

    async def _send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        async with self._turn:
            while self.alive:
                try:
                    channel.send(self._control, message, descriptors)
                    return
                except BlockingIOError:
                    await self._writable()
                except OSError:
                    break
        raise DriverError("the zygote is gone")

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._control, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._control)

    def _receive(self) -> None:
        while self.alive:
            try:
                received = channel.receive(self._control)
            except BlockingIOError:
                return
            if received is None:
                self._lose()
            else:
                self._hear(*received)

    def _hear(self, message: dict[str, Any], descriptors: list[int]) -> None:
        match message:
            case {"event": "ready"}:
                if self._pidfd is not None:
                    os.close(self._pidfd)
                (self._pidfd,) = descriptors
                self._ready.set_result(None)
            case {"event": "broken", "error": error}:
                self._ready.set_exception(DriverError(f"a zygote could not be made: {error}"))
            case {"event": "forked", "id": cell, "pid": pid}:
                self._cells[cell] = pid
                self._settle(cell, lambda forked: forked.set_result(pid))
            case {"event": "refused", "id": cell, "error": error}:
                self._cells.pop(cell, None)
                self._settle(cell, lambda forked: forked.set_exception(DriverError(f"fork: {error}")))
            case {"event": "failed", "id": cell, "error": error}:
                self._failures[cell] = error
            case {"event": "observed", "id": cell}:
                assert self._on_observed is not None
                self._on_observed(cell, descriptors[0])
            case {"event": "exited", "id": cell, "code": code}:
                self._cells.pop(cell, None)
                self._on_end(cell, code, self._failures.pop(cell, None))

    def _settle(self, cell: str, how: Callable[[asyncio.Future[int]], None]) -> None:
        forked = self._forks.get(cell)
        if forked is not None and not forked.done():
            how(forked)

    def _lose(self) -> None:
        if not self.alive:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        self._control.close()
        self._waiting = loop.run_in_executor(None, _wait, self._pidfd, self._process)
        if not self._ready.done():
            self._ready.set_exception(DriverError("a zygote ended before it was ready; the log says why"))
        for cell in list(self._forks):
            self._settle(cell, lambda forked: forked.set_exception(DriverError("the zygote is gone")))
        while self._cells:
            self._on_end(self._cells.popitem()[0], -signal.SIGKILL, None)


def _execute(interpreter: Path, listener: int, plan: Plan) -> subprocess.Popen[bytes]:
    folder = Path(martlet.__file__).parent.parent
    arguments = [str(folder), str(listener), json.dumps(asdict(plan))]
    return subprocess.Popen(
        [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=[listener],
        env=_ENVIRONMENT,
        start_new_session=True,
    )


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _wait(pidfd: int | None, process: subprocess.Popen[bytes] | None) -> None:
    """Returns once the zygote has ended, which its lost channel says it does, or is made to."""
    if pidfd is None:
        return
    end = select.poll()
    end.register(pidfd, select.POLLIN)
    if not end.poll(_END_SECONDS * 1000):
        _kill(pidfd)
        end.poll()
    os.close(pidfd)
    if process is not None:
        process.wait()
