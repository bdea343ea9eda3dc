"""The life of a cell: it starts the function's program once there is code, and ends as that ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from _martlet_python.blocking import Connection
from _martlet_python.evented import Server
from _martlet_python.http1 import Parser
from _martlet_python.reception import Reception

from . import program
from .front import Front
from .output import Output
from .runtime_api import InitError, RuntimeApi

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise: mounts the code and drops all power of the cell."""

_LAST_WORDS_SECONDS = 1.0
_SET_PARENT_DEATH_SIGNAL = 1
_libc = ctypes.CDLL(None)


def warm() -> None:
    """Prepares the process that cells are forked from. Leaves no thread and no descriptor behind."""
    asyncio.run(asyncio.sleep(0))


def serve(listener: socket.socket, prepare: Prepare | None = None) -> NoReturn:
    """Lives the life of a cell on a listening socket, then ends the process.

    It ends with code 0 on SIGTERM, after the requests that run; else as the program has ended.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    cell = _Cell(prepare)
    connection = Reception(cell.specialise).receive(listener)
    cell.run(listener, connection)


class _Crashed(Exception):
    """A program has ended; ``code`` is negative where a signal ended it."""

    def __init__(self, code: int) -> None:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"the process {how} while it loaded the code")


class _Cell:
    def __init__(self, prepare: Prepare | None) -> None:
        self._prepare = prepare
        self._runner = asyncio.Runner()
        self._programs: set[int] = set()
        self._outputs: list[Output] = []
        self._loading: asyncio.Future[None]
        self._server: Server

    def specialise(self, body: bytes, parser: Parser) -> tuple[int, dict[str, Any]]:
        """Starts the program, and waits until it asks for an invocation. Returns status and document of the answer."""
        try:
            document = json.loads(body)
            if document.get("template"):
                return 409, _error("Unforkable", "its code runs in a program of its own")
            if self._prepare is not None:
                self._prepare(document)
        except Exception as error:
            return 500, _error(type(error).__name__, str(error))
        started = time.perf_counter()
        try:
            self._runner.run(self._load(document))
        except InitError as error:
            return 422, {"error": error.document}
        except (program.NoProgram, _Crashed, OSError) as error:
            return 422, _error(type(error).__name__.strip("_"), str(error))
        parser.max_body = document["max_body"]
        return 200, {"mode": "lambda", "load_ms": round((time.perf_counter() - started) * 1000, 3)}

    def run(self, listener: socket.socket, first: Connection | None) -> NoReturn:
        """Serves invocations until SIGTERM."""
        with self._runner:
            self._runner.run(self._server.run(listener, first))
            self._runner.run(self._end())
        os._exit(0)

    async def _load(self, document: dict[str, Any]) -> None:
        code, concurrency = document["code"], document["concurrency"]
        api = RuntimeApi(concurrency)
        self._loading = api.ready
        self._server = Server(Front(api, document["function"]).answer, document["max_body"])
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)
        command, handler = program.find(code, document["dependencies"], document["handler"])
        for _ in range(concurrency):
            output = Output()
            self._outputs.append(output)
            environment = program.environment(document, handler, await api.listen(output))
            self._start(command, code, environment, output)
        await self._loading

    def _start(self, command: list[str], folder: str, environment: dict[str, str], output: Output) -> None:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output.stdout,
            stderr=output.stderr,
            cwd=folder,
            env=environment,
            preexec_fn=partial(_die_with, os.getpid()),  # there are no threads here
        )
        output.started()
        process.returncode = 0  # `_reap` waits for it
        self._programs.add(process.pid)

    def _reap(self) -> None:
        """Waits for what has ended, orphans among them. An instance without its program is none any more."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._programs:
                    self._programs.discard(pid)
                    self._lose(os.waitstatus_to_exitcode(status))

    def _lose(self, code: int) -> None:
        for output in self._outputs:
            output.belongs_to(None)  # what was printed until the end
        if not self._loading.done():
            self._loading.set_exception(_Crashed(code))
        elif self._loading.exception() is None and not self._server.stopping:
            os._exit(128 - code if code < 0 else code)

    async def _end(self) -> None:
        """Lets the programs end by themselves, for a moment: the end of this process is theirs."""
        for pid in self._programs:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        while self._programs and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


def _die_with(parent: int) -> None:
    """Asks the kernel to be killed with this process: where there is no PID namespace, nothing else takes it along."""
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "traceback": ""}}
