"""Where control and the lanes come from: a process that has imported what they need, and forks itself for each.

To fork costs milliseconds where a new interpreter takes a second, so that one that was killed is back at once, and all
of them share the memory of what was imported. What is forked becomes the supervisor's own child (it is orphaned at
once, and the supervisor takes orphans in): the end of the forkserver ends nothing else.

The forkserver opens nothing, starts no thread and reads no settings: what it forks begins as if it were new.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn

from martlet.errors import MartletError
from martlet.sandbox.lifeline import die_with_parent

_MODULES = ("martlet.control.main", "martlet.serve.lane")
_MESSAGE = 64
"""Bytes of the longest message: a role and a number, or a pid."""
_ANSWER_SECONDS = 45.0
"""How long a fork may take; the first waits for the imports, on a machine that may be busy."""
_ORPHANED_SECONDS = 5.0


class Unforked(MartletError):
    """The forkserver did not do what it was asked for."""

    code, title = "unforked", "A process of the platform could not be forked"


class Forked:
    """A process that was forked, as a child of this one. Belongs to the running event loop.

    Attributes:
        pid: its process id; nobody else has it until `wait` has returned.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._code: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(self._handle, self._bury)

    def _bury(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        _, status = os.waitpid(self.pid, 0)
        self._code.set_result(os.waitstatus_to_exitcode(status))

    async def wait(self) -> int:
        """Waits for its end; returns the exit code, or the negative number of the signal that ended it."""
        return await asyncio.shield(self._code)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal if it has not ended."""
        if not self._code.done():
            os.kill(self.pid, number)


class Forkserver:
    """The supervisor's end. It starts the process when it is needed and there is none.

    Attributes:
        pid: the process id; None before the start.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Its process id, once it was started."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Has it begin with its imports; returns before they are done."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "martlet.serve", str(theirs.fileno())),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    async def fork(self, role: str, number: int) -> Forked:
        """Starts a process.

        Args:
            role: ``control`` or ``lane``.
            number: of the lane.

        Returns:
            A child of the calling process.

        Raises:
            Unforked: the forkserver has ended or hangs; the next call starts another.
        """
        async with self._turn:
            if self._channel is None:
                await self.start()
            try:
                return Forked(await asyncio.wait_for(self._ask(f"{role} {number}"), _ANSWER_SECONDS))
            except (OSError, TimeoutError) as error:
                await self.close()
                raise Unforked(f"{role} {number} could not be forked: {error or 'no answer'}") from error

    async def _ask(self, request: str) -> int:
        assert self._channel is not None
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._channel, request.encode())
        # Who was forked answers by itself: as long as somebody could still do so, this is not the end of the channel.
        answer = await loop.sock_recv(self._channel, _MESSAGE)
        if not answer:
            raise ConnectionResetError("the forkserver has ended")
        return int(answer)

    async def close(self) -> None:
        """Ends the process; what it has forked stays."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def serve(channel: socket.socket) -> tuple[str, int]:
    """Runs the forkserver. It returns in what it has forked only: the role and the number that this process now has.

    Args:
        channel: the other end of the supervisor's, who is the parent; when it closes, this process ends.
    """
    die_with_parent()
    supervisor = os.getppid()
    _name("martlet-fork")
    gc.disable()  # what is imported stays, and is looked through once
    for module in _MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()
    gc.enable()
    while request := channel.recv(_MESSAGE):
        between = os.fork()
        if between:
            os.waitpid(between, 0)
        elif os.fork():
            os._exit(0)
        else:
            role, number = request.decode().split()
            _begin(channel, supervisor, role if role == "control" else f"{role}-{number}")
            return role, int(number)
    sys.exit(0)


def _begin(channel: socket.socket, supervisor: int, name: str) -> None:
    """In what was forked: waits until it is the supervisor's, and tells it so."""
    deadline = monotonic() + _ORPHANED_SECONDS
    while os.getppid() != supervisor:
        if monotonic() > deadline:
            _give_up()
        sleep(0.0005)
    os.setpgid(0, 0)
    _name(f"martlet-{name}")
    try:
        channel.send(str(os.getpid()).encode())
    except OSError:
        _give_up()  # the supervisor does not know of this process, and has perhaps started another
    channel.close()


def _give_up() -> NoReturn:
    os._exit(1)


def _name(name: str) -> None:
    """Sets what ``top`` and ``ps -o comm`` show, of which the kernel keeps 15 bytes."""
    Path("/proc/self/comm").write_text(name)
