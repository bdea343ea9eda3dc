"""Real etcd servers for tests: one, or a cluster, on free ports, of the loopback interface unless told otherwise."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import require
from tests.ports import free_port

START_SECONDS = 60
LOOPBACK = "127.0.0.1"


class Member:
    """One etcd process; its data stays where it is when it is stopped and started again."""

    def __init__(
        self, name: str, folder: Path, options: Sequence[str] = (), scheme: str = "http", host: str = LOOPBACK
    ) -> None:
        self.name = name
        self.folder = folder
        self.endpoint = f"{host}:{free_port(host)}"
        self.peer = f"http://{host}:{free_port(host)}"
        self._scheme = scheme
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        """Starts it as a member of ``cluster``."""
        url = f"{self._scheme}://{self.endpoint}"
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("etcd", "--name", self.name, "--data-dir", str(self.folder / self.name)),
                    *("--listen-client-urls", url, "--advertise-client-urls", url),
                    *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
                    *("--initial-cluster", cluster, "--initial-cluster-token", self.folder.name),
                    *("--unsafe-no-fsync", "--logger", "zap", "--log-level", "error"),
                    *("--heartbeat-interval", "100", "--election-timeout", "1000"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal. One that is to stop has stopped, with all of its threads, when this returns."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """Ends it at once, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Members that know each other."""

    def __init__(
        self,
        folder: Path,
        size: int = 1,
        options: Sequence[str] = (),
        tls: Sequence[str] = (),
        host: str = LOOPBACK,
    ) -> None:
        require(
            shutil.which("etcd") and shutil.which("etcdctl"), "etcd and etcdctl (etcd-server, etcd-client)"
        )
        scheme = "https" if tls else "http"
        self._tls = tls
        self._scheme = scheme
        self.members = [Member(f"m{number}", folder, options, scheme, host) for number in range(size)]
        self.names = ",".join(f"{member.name}={member.peer}" for member in self.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """``host:port`` of the members."""
        return tuple(member.endpoint for member in self.members)

    @property
    def ports(self) -> list[int]:
        """Where the members are asked."""
        return [int(endpoint.rpartition(":")[2]) for endpoint in self.endpoints]

    def start(self) -> None:
        """Starts all members and waits until they do what they are asked."""
        for member in self.members:
            member.start(self.names)
        self.wait()

    def wait(self) -> None:
        """Waits until there is a leader."""
        deadline = time.monotonic() + START_SECONDS
        while self.ctl("endpoint", "health", check=False).returncode != 0:
            assert time.monotonic() < deadline, "etcd did not become ready"
            time.sleep(0.1)

    def leader(self) -> Member:
        """Returns the member that leads."""
        found = json.loads(self.ctl("endpoint", "status", "-w", "json").stdout)
        leads = next(
            each for each in found if each["Status"]["leader"] == each["Status"]["header"]["member_id"]
        )
        endpoint = leads["Endpoint"].partition("://")[2] or leads["Endpoint"]
        return next(member for member in self.members if member.endpoint == endpoint)

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs etcdctl."""
        urls = ",".join(f"{self._scheme}://{endpoint}" for endpoint in self.endpoints)
        return subprocess.run(
            ["etcdctl", "--endpoints", urls, *self._tls, *arguments],
            env={"PATH": os.environ["PATH"], "ETCDCTL_API": "3"},
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def compact(self, revision: int) -> None:
        """Forgets the history up to a revision."""
        self.ctl("compaction", str(revision))

    def kill(self) -> None:
        """Ends all members."""
        for member in self.members:
            member.kill()
