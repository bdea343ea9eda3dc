"""A real Redis for tests, on loopback unless told otherwise."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.conftest import require
from tests.ports import free_port

START_SECONDS = 60


class RedisServer:
    """A Redis that keeps all it accepts, in ``folder``.

    Attributes:
        port: of the server.
        url: of its first database.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        program = shutil.which("redis-server")
        require(program, "the program redis-server (Debian: redis-server)")
        self.port = free_port(host)
        self.url = self.url_over(self.port, host)
        self._host = host
        self._folder = folder
        self._command = [
            *(str(program), "--bind", host, "--port", str(self.port), "--dir", str(folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--protected-mode", "no"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def url_over(port: int, host: str = "127.0.0.1") -> str:
        """Returns the address over a port that leads here."""
        return f"redis://{host}:{port}/0"

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def kill(self) -> None:
        """Kills the server; what it has accepted stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def log(self) -> str:
        """Returns the end of what the server has printed."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._host, self.port), 10) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False
