"""The lane's end of a zygote or a keeper: starts it or finds one that waits, talks to it, hears of cells that end."""

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
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import martlet
from martlet.drivers.driver import DriverError
from martlet.sandbox import channel

OnEnd = Callable[[str, int, str | None], None]
"""Called with the id and the exit code of a cell that ended, and why its sandbox could not be made, if so."""

_BOOTSTRAP = """
import json, sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import {program}
sys.path.remove(sys.argv[1])
{program}.main(int(sys.argv[2]), json.loads(sys.argv[3]))
"""
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    # What libc keeps of freed memory, to be quick, lies in seven pages more that each fork copies.
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
_READY_SECONDS = 20.0
_FIND_SECONDS = 5.0
_END_SECONDS = 5.0
_IN_FLIGHT = 32


class Parent:
    """One parent and its cells. Make one with `start`, or take one over with `find`.

    Attributes:
        program: the module of `martlet.sandbox` that it runs; also what people call it.
        alive: whether it can be talked to.
    """

    program: ClassVar[str]

    def __init__(
        self,
        control: socket.socket,
        on_end: OnEnd,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._control = control
        self._process = process
        self._pidfd: int | None = None if process is None else os.pidfd_open(process.pid)
        self._on_end = on_end
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked: dict[str, asyncio.Future[int | None]] = {}
        self._failures: dict[str, str] = {}
        self._cells: dict[str, int | None] = {}
        # More would overrun the channel's buffer and the kernel's bound on descriptors in flight.
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self.alive = True
        asyncio.get_running_loop().add_reader(control, self._receive)

    @classmethod
    async def start(
        cls, at: Path, interpreter: Path, plan: Any, on_end: OnEnd, inherited: Sequence[int] = ()
    ) -> Self:
        """Starts a parent and returns it once it is able to start cells.

        Args:
            at: where it is to listen, in a directory that is the platform's alone.
            interpreter: the Python that runs it, without site folder and environment.
            plan: what it becomes, a dataclass.
            on_end: see `OnEnd`; called for every cell, also when all of them end with the parent.
            inherited: descriptors that it gets, under the same numbers.

        Raises:
            DriverError: it could not be made; the message says why.
        """
        with channel.listen(at) as listener:
            control = channel.connect(at)
            process = _execute(cls.program, interpreter, listener.fileno(), plan, inherited)
        parent = cls(control, on_end, process)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await parent._ready
        except BaseException as error:
            await parent.close()
            if isinstance(error, TimeoutError):
                raise DriverError(f"a {cls.program} was not ready within {_READY_SECONDS:g} s") from None
            raise
        return parent

    @classmethod
    async def find(cls, at: Path, on_end: OnEnd) -> Self | None:
        """Takes over a parent that an earlier life of the lane started; returns None where none answers ``at``."""
        try:
            parent = cls(channel.connect(at), on_end)
        except OSError:
            return None
        try:
            async with asyncio.timeout(_FIND_SECONDS):
                await parent._ready
        except (TimeoutError, DriverError):
            await parent.close()
            return None
        except BaseException:
            await parent.close()
            raise
        return parent

    @property
    def cells(self) -> dict[str, int]:
        """The process ids of the living cells."""
        return {cell: pid for cell, pid in self._cells.items() if pid is not None}

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
        """Ends the parent and all of its cells."""
        if self._pidfd is not None and self.alive:
            _kill(self._pidfd)
        self._lose()
        assert self._waiting is not None
        await self._waiting

    async def _start(self, cell: str, message: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Asks for a new cell, which gets ``descriptors``, and returns its process id. Raises as `_ask` does."""
        pid = await (await self._request(cell, message, descriptors, begins=True))
        assert pid is not None
        return pid

    async def _ask(self, cell: str, message: dict[str, Any]) -> int | None:
        """Asks for something for a cell and returns what the answer is settled with.

        Raises:
            DriverError: the parent refuses, or is gone.
        """
        return await (await self._request(cell, message))

    async def _request(
        self, cell: str, message: dict[str, Any], descriptors: Sequence[int] = (), *, begins: bool = False
    ) -> asyncio.Future[int | None]:
        """Asks for something for a cell. Returns once it is asked, with the answer to come, which raises as `_ask`.

        Args:
            cell: its id.
            message: what is asked.
            descriptors: what goes with it.
            begins: whether the cell begins with this: then its end is heard of, even if there is no answer.

        Raises:
            DriverError: the parent is gone.
        """
        await self._room.acquire()
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(partial(self._answered, cell))
        self._asked[cell] = answer
        try:
            await self._send({"id": cell, **message}, descriptors)
        except BaseException:
            answer.cancel()
            raise
        if begins:
            self._cells.setdefault(cell, None)
        return answer

    def _answered(self, cell: str, answer: asyncio.Future[int | None]) -> None:
        del self._asked[cell]
        self._room.release()
        if not answer.cancelled():
            answer.exception()  # which nobody may wait for any more

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
        raise DriverError(f"the {self.program} is gone")

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
                self._ready.set_exception(DriverError(f"a {self.program} could not be made: {error}"))
            case {"event": "forked", "id": cell, "pid": pid}:
                self._cells[cell] = pid
                self._settle(cell, pid)
            case {"event": "refused", "id": cell, "error": error}:
                began = self._cells.get(cell, 0) is None
                if began:
                    del self._cells[cell]
                if cell in self._asked:
                    self._refuse(cell, DriverError(f"the {self.program} refused: {error}"))
                elif began:
                    self._on_end(cell, -signal.SIGKILL, None)
            case {"event": "failed", "id": cell, "error": error}:
                self._failures[cell] = error
            case {"event": "exited", "id": cell, "code": code}:
                self._cells.pop(cell, None)
                self._on_end(cell, code, self._failures.pop(cell, None))

    def _settle(self, cell: str, answer: int | None) -> None:
        asked = self._asked.get(cell)
        if asked is not None and not asked.done():
            asked.set_result(answer)

    def _refuse(self, cell: str, error: DriverError) -> None:
        asked = self._asked.get(cell)
        if asked is not None and not asked.done():
            asked.set_exception(error)

    def _lose(self) -> None:
        if not self.alive:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._control)
        self._control.close()
        self._waiting = loop.run_in_executor(None, _wait, self._pidfd, self._process)
        if not self._ready.done():
            self._ready.set_exception(
                DriverError(f"a {self.program} ended before it was ready; the log says why")
            )
        for cell in list(self._asked):
            self._refuse(cell, DriverError(f"the {self.program} is gone"))
        while self._cells:
            self._on_end(self._cells.popitem()[0], -signal.SIGKILL, None)


def _execute(
    program: str, interpreter: Path, listener: int, plan: Any, inherited: Sequence[int]
) -> subprocess.Popen[bytes]:
    folder = Path(martlet.__file__).parent.parent
    arguments = [str(folder), str(listener), json.dumps(asdict(plan))]
    return subprocess.Popen(
        [interpreter, "-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP.format(program=program), *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=[listener, *inherited],
        env=_ENVIRONMENT,
        start_new_session=True,
    )


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _wait(pidfd: int | None, process: subprocess.Popen[bytes] | None) -> None:
    """Returns once the parent has ended, which its lost channel says it does, or is made to."""
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
