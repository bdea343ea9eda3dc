"""A running Python shim, and real clients for it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from martlet.runtimes import INTERPRETER, Catalogue

SECONDS = 60.0
"""Deadline of everything that is waited for."""


class Client(http.client.HTTPConnection):
    """A keep-alive HTTP connection over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = dial(self._path)

    def ask(
        self, method: str = "GET", target: str = "/", body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        self.request(method, target, body, headers or {})
        response = self.getresponse()
        return Answer(response.status, response.headers, response.read())


class Answer:
    """One response, read to its end."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Shim:
    """One cell of the Python runtime: its socket, its log and its end.

    Attributes:
        code: the folder for the user's code.
        path: of its socket.
        lines: what it wrote to its log so far.
    """

    def __init__(self, folder: Path, start: Start) -> None:
        self.path = folder / "sock"
        self.code = folder / "code"
        self.code.mkdir()
        self.lines: list[bytes] = []
        reader, writer = os.pipe()
        self.process = start(self.path, writer)
        os.close(writer)
        self._reader = threading.Thread(target=self._read, args=[reader])
        self._reader.start()
        until(self._listens)

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb") as log:
            self.lines.extend(log)

    def _listens(self) -> bool:
        try:
            dial(self.path).close()
        except OSError:
            return False
        return True

    def deploy(self, files: str | dict[str, str], handler: str = "handle", **members: Any) -> Shim:
        """Specialises, and is sure that the code loaded."""
        answer = self.specialise(files, handler, **members)
        assert answer.status == 200, answer.text
        return self

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def specialise(self, files: str | dict[str, str], handler: str = "handle", **members: Any) -> Answer:
        for name, text in ({"handler.py": files} if isinstance(files, str) else files).items():
            path = self.code / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        spec = {
            "function": "hello",
            "revision": 3,
            "code": str(self.code),
            "dependencies": None,
            "handler": handler,
            "environment": {},
            "concurrency": 1,
            "max_body": 20 * 1024 * 1024,
        }
        with self.client() as client:
            return client.ask("POST", "/_martlet/specialise", json.dumps(spec | members))

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client(self.path)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        with dial(self.path) as connection:
            yield connection

    def ask(self, method: str = "GET", target: str = "/", body: Any = None, **headers: str) -> Answer:
        with self.client() as client:
            return client.ask(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def frames(self) -> list[dict[str, Any]]:
        """What was logged so far, as frames; lines that are none are left out."""
        return [json.loads(line[1:]) for line in list(self.lines) if line.startswith(b"\x1e")]

    def logged(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits for a frame and returns it."""
        until(lambda: any(map(wanted, self.frames())))
        return next(filter(wanted, self.frames()))


def send_until_refused(connection: socket.socket, data: bytes) -> int:
    """Sends until the peer has taken nothing for a while. Returns how many bytes it took."""
    connection.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += connection.send(data[sent : sent + 65536])
    connection.settimeout(SECONDS)
    return sent


class Process(Protocol):
    """What of a started process the tests use."""

    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


Start = Callable[[Path, int], Process]
"""Starts a cell that listens at a path and writes its log to a descriptor."""


def program(path: Path, log: int, by_descriptor: bool = False) -> Process:
    """Starts the shim's own program, as a sandbox does that starts it anew."""
    runtime = Catalogue.load().resolve("python")
    with socket.socket(socket.AF_UNIX) as listener:
        if by_descriptor:
            listener.bind(str(path))
            listener.listen()
        where = ["--listen-fd", str(listener.fileno())] if by_descriptor else ["--socket", str(path)]
        return subprocess.Popen(
            [INTERPRETER, *OPTIONS, runtime.folder / "shim.py", *where],
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            env=ENVIRONMENT,
        )


OPTIONS = ("-I", "-S", "-X", "utf8")
ENVIRONMENT = {"LANG": "C.UTF-8", "LEFT_OVER": "of the parent"}

_ZYGOTE = """
import gc, importlib, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
shim = importlib.import_module(sys.argv[2])
del sys.path[0]
shim.warm()
gc.collect()
gc.freeze()
control = socket.socket(fileno=int(sys.argv[3]))
signal.signal(signal.SIGCHLD, lambda *_: None)
while True:
    message, descriptors, _, _ = socket.recv_fds(control, 100, 2)
    if not message:
        break
    if message in (b"fork", b"stand by"):
        pid = os.fork()
        if pid == 0:
            control.close()
            os.dup2(descriptors[1], 1)
            os.dup2(descriptors[1], 2)
            os.close(descriptors[1])
            if message == b"stand by":
                shim.stand_by()
            shim.serve(socket.socket(fileno=descriptors[0]), None)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(b"%d" % pid)
    else:
        _, status = os.waitpid(int(message), 0)
        control.send(b"%d" % os.waitstatus_to_exitcode(status))
"""


class Zygote:
    """A warm process that forks cells, as the process driver's zygote does, without its sandbox."""

    def __init__(self) -> None:
        runtime = Catalogue.load().resolve("python")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(runtime.folder), str(runtime.description.start.module), str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                [INTERPRETER, *OPTIONS, "-c", _ZYGOTE, *arguments],
                pass_fds=[theirs.fileno()],
                env=ENVIRONMENT,
            )

    def fork(self, path: Path, log: int) -> Process:
        return self._fork(path, log, b"fork")

    def fork_one_that_stands_by(self, path: Path, log: int) -> Process:
        """As `fork`, of what has done ahead all that a cell can."""
        return self._fork(path, log, b"stand by")

    def _fork(self, path: Path, log: int, how: bytes) -> Process:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            socket.send_fds(self._control, [how], [listener.fileno(), log])
            return Forked(int(self._control.recv(100)), self)

    def wait(self, pid: int) -> int:
        self._control.send(b"%d" % pid)
        return int(self._control.recv(100))

    def close(self) -> None:
        self._control.close()
        self._process.wait()


class Forked:
    """A cell that a zygote forked."""

    def __init__(self, pid: int, zygote: Zygote) -> None:
        self._pid = pid
        self._zygote = zygote
        self._code: int | None = None

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Asks it to end once it waits: a signal in the instant before that would be noticed only afterwards."""
        until(lambda: Path(f"/proc/{self._pid}/stat").read_text().rpartition(") ")[2][0] == "S")
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._code is None:
            os.kill(self._pid, number)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for its end; the test's own timeout is the limit."""
        if self._code is None:
            self._code = self._zygote.wait(self._pid)
        return self._code


def dial(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(SECONDS)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition, for at most `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
