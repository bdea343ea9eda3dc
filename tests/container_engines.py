"""Real container engines of the tests' own, apart from those that the machine may run: folders, sockets, containers."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from martlet.drivers.docker.service import Service
from martlet.sandbox.lifeline import die_with_parent
from tests.conftest import require

SECONDS = 60.0
_FLAGS = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false")
"""Nothing of the machine's own network is touched."""


class Dockerd:
    """Docker Engine in a folder of its own.

    Attributes:
        socket: where it listens.
    """

    def __init__(self) -> None:
        self._program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
        require(self._program, "dockerd (Debian: docker.io)")
        require(os.geteuid() == 0, "root, for Docker Engine")
        self.folder = Path(tempfile.mkdtemp(prefix="martlet-docker-", dir="/tmp"))
        self.socket = self.folder / "sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and returns once it answers."""
        assert self._program is not None
        own = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    *(f"{option}={self.folder / name}" for option, name in own.items()),
                    f"--host=unix://{self.socket}",
                    *_FLAGS,
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "Docker Engine does not start"
            time.sleep(0.05)

    def _answers(self) -> bool:
        command = [
            "curl",
            "--silent",
            "--fail",
            "--max-time",
            "10",
            "--unix-socket",
            str(self.socket),
            "http://docker/_ping",
        ]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def containers(self) -> list[str]:
        """Returns the ids of all of its containers, running or not."""
        command = [
            "curl",
            "--silent",
            "--fail",
            "--unix-socket",
            str(self.socket),
            "http://docker/containers/json?all=1",
        ]
        said = subprocess.run(command, capture_output=True, check=True).stdout
        return [container["Id"] for container in json.loads(said)]

    def signal(self, number: int) -> None:
        """Sends a signal to the daemon."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Ends it with all of its containers."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """Ends it as a crash would."""
        assert self._process is not None
        containerd = int((self.folder / "exec/containerd/containerd.pid").read_text())
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + SECONDS
        while Path(f"/proc/{containerd}").exists():  # or the next one would take it for its own
            assert time.monotonic() < deadline, "containerd does not end with its daemon"
            time.sleep(0.01)

    def remove(self) -> None:
        """Ends it and removes all that it had."""
        self.stop()
        # A daemon that was killed while it started a container has forgotten its shim.
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if f"{self.folder}/".encode() in place.read_bytes():
                    os.kill(int(place.parent.name), signal.SIGKILL)
        _remove(self.folder)


@cache
def dockerd() -> Dockerd:
    """Returns the one that most tests share; it ends with them."""
    daemon = Dockerd()
    daemon.start()
    atexit.register(daemon.remove)
    return daemon


def docker_service(folder: Path) -> Service:
    """Returns the way to Docker Engine, for a platform in ``folder``."""
    return Service("docker", folder / "docker.sock", dockerd().socket)


@cache
def _podman_folder() -> Path:
    require(shutil.which("podman"), "podman (Debian: podman)")
    folder = Path(tempfile.mkdtemp(prefix="martlet-podman-", dir="/tmp"))
    # Its usual locks are one piece of shared memory for every podman of the machine, whatever its folders.
    configuration = folder / "containers.conf"
    configuration.write_text('[engine]\nlock_type = "file"\n')
    os.environ["CONTAINERS_CONF"] = str(configuration)
    atexit.register(_remove, folder)
    return folder


def podman_service(folder: Path, *further: str) -> Service:
    """Returns the way to podman, whose service must be started, for a platform in ``folder``.

    Args:
        folder: the platform's.
        further: global options of that service.
    """
    own = _podman_folder()
    folders = ("--root", str(own / "root"), "--runroot", str(own / "run"), "--tmpdir", str(own / "tmp"))
    options = (*folders, *further)
    return Service("podman", folder / "podman.sock", own / "nobody-listens-here", options)


class DockerOfTests:
    """A Docker Engine of its own that a platform is told of, which may be struck down and come back."""

    name = "docker"
    words = "does not answer.*What to do: start Docker Engine"
    """What deployers are told while it is down."""

    def __init__(self) -> None:
        self._daemon = Dockerd()
        self._daemon.start()
        self.environment = {"DOCKER_HOST": f"unix://{self._daemon.socket}"}

    def containers(self) -> list[str]:
        """Returns the ids of all of its containers."""
        return self._daemon.containers()

    def kill_container(self, container: str) -> None:
        """Kills a container as ``docker kill`` does."""
        target = f"http://docker/containers/{container}/kill"
        command = [
            "curl",
            "--silent",
            "--fail",
            "--request",
            "POST",
            "--unix-socket",
            str(self._daemon.socket),
        ]
        subprocess.run([*command, target], check=True)

    def strike_down(self, run: Path) -> None:
        """Kills it."""
        self._daemon.kill()

    def restore(self) -> None:
        """Starts it anew."""
        self._daemon.start()

    def remove(self) -> None:
        """Ends it and removes all that it had."""
        self._daemon.remove()


class PodmanOfTests:
    """A podman with folders of the tests that a platform is told of, which may be struck down and come back."""

    name = "podman"
    words = "podman's service ended: .*toml"

    def __init__(self) -> None:
        own = _podman_folder()
        self._storage = own / "storage.conf"
        self._folder = own
        self.restore()
        self.environment = {
            "CONTAINERS_STORAGE_CONF": str(self._storage),
            "CONTAINERS_CONF": os.environ["CONTAINERS_CONF"],
            "CONTAINER_HOST": f"unix://{own}/nobody-listens-here",
        }

    def containers(self) -> list[str]:
        """Returns the ids of all of its containers, running or not."""
        return self._podman("ps", "--all", "--quiet", "--no-trunc").split()

    def kill_container(self, container: str) -> None:
        """Kills a container as ``podman kill`` does."""
        self._podman("kill", container)

    def strike_down(self, run: Path) -> None:
        """Kills the services of a platform, and lets none start anew."""
        self._storage.write_text("[storage")
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):
                if f"unix://{run}/".encode() in place.read_bytes():
                    os.kill(int(place.parent.name), signal.SIGKILL)

    def restore(self) -> None:
        """Lets services start."""
        own = self._folder
        self._storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{own}/root"\nrunroot = "{own}/run"\n'
        )

    def remove(self) -> None:
        """Leaves its folders to the end of the tests."""

    def _podman(self, *arguments: str) -> str:
        environment = {**os.environ, **self.environment}
        del environment["CONTAINER_HOST"]
        command = ["podman", "--cgroup-manager=cgroupfs", "--events-backend=none", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout


def _remove(folder: Path) -> None:
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in sorted((each for each in mounts if each.startswith(f"{folder}/")), reverse=True):
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", place], check=True, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def _lines(command: list[str], environment: dict[str, str]) -> list[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
