"""A driver without sandboxes: each instance is an HTTP/1.1 server in this very process, on a unix socket.

It speaks the instance contract and needs no rights, so that what stands in front of a driver can be tried
anywhere. What a function does is a `Behaviour`, and `Faults` make the driver itself misbehave.

    driver = FakeDriver({"hello": hello, "broken": crash})
    driver.faults.start_delay = 0.2
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httptools

from martlet.drivers.contract import HEALTH
from martlet.drivers.driver import (
    CellSpec,
    DriverError,
    Guarantee,
    Handle,
    Loaded,
    LoadFailed,
    OnExit,
    Stats,
    Unforkable,
)
from martlet.model import MiB, Revision


@dataclass(frozen=True, slots=True)
class FakeRequest:
    """What reached an instance. Names of headers are in lower case; ``log`` writes a line to its log."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    log: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class FakeResponse:
    """What an instance answers; ``content-length`` is added."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Behaviour = Callable[[FakeRequest], Awaitable[FakeResponse]]


class Ends(Exception):
    """Raised by a behaviour: the instance ends with this exit code; ``out_of_memory`` counts it as such."""

    def __init__(self, code: int, *, out_of_memory: bool = False) -> None:
        super().__init__(code)
        self.code, self.out_of_memory = code, out_of_memory


async def hello(request: FakeRequest) -> FakeResponse:
    """Answers with a greeting."""
    return FakeResponse(body=b"hello")


async def echo(request: FakeRequest) -> FakeResponse:
    """Answers with the body of the request."""
    return FakeResponse(body=request.body)


async def crash(request: FakeRequest) -> FakeResponse:
    """Ends the instance instead of answering."""
    raise Ends(1)


async def run_out_of_memory(request: FakeRequest) -> FakeResponse:
    """Ends the instance as the kernel does when a limit is passed."""
    raise Ends(-signal.SIGKILL, out_of_memory=True)


async def hang(request: FakeRequest) -> FakeResponse:
    """Never answers."""
    await asyncio.Event().wait()
    return FakeResponse()


@dataclass(slots=True)
class Faults:
    """What goes wrong from now on. Change it at any time.

    Attributes:
        start: `start` fails with these words.
        start_delay: seconds that `start` takes.
        load: functions of these names do not load, and this is why.
        load_delays: seconds that functions of these names take to load.
        unforkable: functions of these names become no template, and this is why.
    """

    start: str | None = None
    start_delay: float = 0.0
    load: dict[str, LoadFailed] = field(default_factory=dict)
    load_delays: dict[str, float] = field(default_factory=dict)
    unforkable: dict[str, Unforkable] = field(default_factory=dict)


class FakeDriver:
    """See the module. ``functions`` says what each function does; the others `echo`."""

    name = "fake"

    def __init__(
        self, functions: Mapping[str, Behaviour] | None = None, faults: Faults | None = None
    ) -> None:
        self.functions = dict(functions or {})
        self.faults = faults or Faults()
        self._instances: dict[str, _Instance] = {}
        self._on_exit: OnExit = lambda *_: None

    def probe(self) -> list[Guarantee]:
        """Returns an empty list: nothing is promised."""
        return []

    async def open(self, on_exit: OnExit) -> None:
        """Takes note of whom to tell."""
        self._on_exit = on_exit

    async def close(self) -> None:
        """Destroys every instance."""
        for instance in reversed(list(self._instances.values())):  # forks before their templates
            await self._remove(instance)

    async def start(self, spec: CellSpec) -> Handle:
        """Starts a server that answers health probes and nothing else yet."""
        try:
            await asyncio.sleep(self.faults.start_delay)
            if self.faults.start is not None:
                raise DriverError(self.faults.start)
            instance = _Instance(spec, self._ended)
            await instance.open()
        except BaseException:
            shutil.rmtree(spec.directory, ignore_errors=True)
            raise
        self._instances[spec.id] = instance
        return instance.handle

    async def specialise(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Gives the instance its behaviour; ``code`` is not read."""
        instance = self._instances.get(handle.id)
        if instance is None or instance.ended:
            raise DriverError(f"the cell {handle.id} is gone")
        if instance.behaviour is not None:
            raise DriverError(f"{handle.id} is an instance already")
        started = time.perf_counter()
        try:
            async with asyncio.timeout(deadline):
                await asyncio.sleep(self.faults.load_delays.get(revision.function, 0.0))
        except TimeoutError:
            await self._remove(instance)
            raise LoadFailed("Timeout", f"the code did not load within {deadline:g} s") from None
        if revision.function in self.faults.load:
            raise self.faults.load[revision.function]
        instance.behaviour = self.functions.get(revision.function, echo)
        return Loaded(mode="async", load_ms=(time.perf_counter() - started) * 1000)

    async def prepare_template(
        self, handle: Handle, revision: Revision, code: Path, dependencies: Path | None, deadline: float
    ) -> Loaded:
        """Gives the template the behaviour of its forks, or refuses to; see `Faults`."""
        if revision.function in self.faults.unforkable:
            raise self.faults.unforkable[revision.function]
        return await self.specialise(handle, revision, code, dependencies, deadline)

    async def fork(self, template: Handle, spec: CellSpec) -> Handle:
        """Starts another server with the behaviour of the template."""
        origin = self._instances.get(template.id)
        if origin is None or origin.ended:
            raise DriverError(f"the template {template.id} is gone")
        handle = await self.start(spec)
        self._instances[spec.id].behaviour = origin.behaviour
        origin.forks.append(self._instances[spec.id])
        return handle

    async def identify(self, handle: Handle) -> Handle:
        """Returns it: there is no process."""
        return handle

    async def recover(self, handle: Handle) -> bool:
        """Whether the instance lives in this driver."""
        return handle.id in self._instances and not self._instances[handle.id].ended

    async def sweep(self) -> None:
        """Does nothing: what lived in another process ended with it."""

    async def stop(self, handle: Handle, grace: float) -> None:
        """Lets requests end for ``grace`` seconds, then destroys."""
        instance = self._instances.get(handle.id)
        if instance is not None:
            await instance.drain(grace)
        await self.destroy(handle)

    async def destroy(self, handle: Handle) -> None:
        """Ends the instance and removes its directory."""
        instance = self._instances.get(handle.id)
        if instance is not None:
            await self._remove(instance)
        shutil.rmtree(Path(handle.socket).parent, ignore_errors=True)

    async def stats(self, handle: Handle) -> Stats | None:
        """Returns made-up figures, but for ``oom_kills``; None once it is destroyed."""
        instance = self._instances.get(handle.id)
        if instance is None:
            return None
        return Stats(memory_bytes=MiB, cpu_ms=1.0, processes=1, oom_kills=int(instance.out_of_memory))

    def kill(self, id: str, code: int = -signal.SIGKILL) -> None:  # noqa: A002
        """Ends an instance as if it had ended by itself."""
        self._instances[id].end(Ends(code))

    def _ended(self, id: str, code: int) -> None:  # noqa: A002
        self._on_exit(id, code)

    async def _remove(self, instance: _Instance) -> None:
        if self._instances.pop(instance.handle.id, None) is None:
            return  # another task removes it
        await instance.close()
        for fork in instance.forks:
            if fork.handle.id in self._instances and not fork.ended:
                fork.end(Ends(-signal.SIGKILL))


class _Instance:
    """One server. Several connections, each one request at a time."""

    def __init__(self, spec: CellSpec, on_exit: OnExit) -> None:
        self.handle = Handle(
            spec.id, "fake", spec.runtime, str(spec.directory / "sock"), str(spec.directory / "log")
        )
        self.behaviour: Behaviour | None = None
        self.forks: list[_Instance] = []
        self.ended = False
        self.out_of_memory = False
        self._on_exit = on_exit
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._idle = asyncio.Event()
        self._running = 0

    async def open(self) -> None:
        os.mkfifo(self.handle.log)
        self._log = os.open(self.handle.log, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._server = await asyncio.start_unix_server(self._serve, self.handle.socket)
        self._idle.set()

    def end(self, how: Ends) -> None:
        """Ends on its own: connections break, and whoever asked is told."""
        self.out_of_memory = how.out_of_memory
        self._break()
        self._on_exit(self.handle.id, how.code)

    async def drain(self, grace: float) -> None:
        self._server.close()
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        self._break()
        os.close(self._log)
        tasks = [task for task in self._connections if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        shutil.rmtree(Path(self.handle.socket).parent, ignore_errors=True)

    def _break(self) -> None:
        self.ended = True
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            await self._converse(reader, writer)
        except Ends as how:
            self.end(how)
        except (ConnectionError, httptools.HttpParserError):
            pass
        finally:
            del self._connections[task]
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        incoming = _Incoming()
        while data := await reader.read(64 * 1024):
            for request in incoming.feed(data, self._print):
                self._running += 1
                self._idle.clear()
                try:
                    response = await self._answer(request)
                finally:
                    self._running -= 1
                    if not self._running:
                        self._idle.set()
                writer.write(_encode(response))
                await writer.drain()
            if not incoming.keep_alive:
                return

    async def _answer(self, request: FakeRequest) -> FakeResponse:
        if request.target == HEALTH:
            return FakeResponse(body=b"{}")
        if self.behaviour is None:
            return FakeResponse(503)
        return await self.behaviour(request)

    def _print(self, line: str) -> None:
        os.write(self._log, line.encode() + b"\n")


class _Incoming:
    """Requests, as httptools finds them in what a connection brings."""

    def __init__(self) -> None:
        self.keep_alive = True
        self._parser = httptools.HttpRequestParser(self)
        self._complete: list[tuple[str, str, dict[str, str], bytes]] = []
        self.on_message_begin()

    def feed(self, data: bytes, log: Callable[[str], None]) -> list[FakeRequest]:
        """Returns the requests that are complete with ``data``."""
        self._parser.feed_data(data)
        complete, self._complete = self._complete, []
        return [FakeRequest(*parts, log=log) for parts in complete]

    def on_message_begin(self) -> None:
        self._target, self._body = b"", bytearray()
        self._headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.keep_alive = self._parser.should_keep_alive()
        method = self._parser.get_method().decode()
        self._complete.append((method, self._target.decode("latin-1"), self._headers, bytes(self._body)))


def _encode(response: FakeResponse) -> bytes:
    headers = {**response.headers, "content-length": str(len(response.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} Fake\r\n{lines}\r\n".encode("latin-1") + response.body
