"""Docker Engine and podman in folders of the bench's own, which start the handler that Martlet is asked for."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.load import ask
from martlet.drivers.roots import HostRoots, Root
from martlet.runtimes import INTERPRETER, Catalogue
from martlet.runtimes.runtime import RUNTIME
from martlet.sandbox.lifeline import die_with_parent

IMAGE = "martlet-bench"
SHARED = "/.martlet"
"""Where a container sees the folder with its code and its socket."""
_USER = 65534
_ALONE = ("--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false")
"""Nothing of the machine's own network is touched."""
_LIMITS = ("--memory=128m", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
_HELD = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", *_LIMITS)
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Engine:
    """What starts containers: the command, and the root that its image and its binds make up."""

    command: list[str]
    root: Root
    folder: Path

    def first_response(self) -> float:
        """Returns the ms from ``run`` to the response of the handler in the container, which is removed then."""
        shared = Path(tempfile.mkdtemp(dir=self.folder))
        (shared / "handler.py").write_text(peers.HELLO)
        os.chown(shared, _USER, _USER)
        binds = {**self.root.binds, RUNTIME: str(self.root.runtime.folder)}
        options = [f"--volume={folder}:{place}:ro" for place, folder in binds.items()]
        options += [*_HELD, f"--volume={shared}:{SHARED}", f"--user={_USER}:{_USER}", f"--name={shared.name}"]
        program = [str(INTERPRETER), f"{RUNTIME}/shim.py", "--socket", f"{SHARED}/sock"]
        began = time.perf_counter()
        run = subprocess.Popen([*self.command, "run", *options, IMAGE, *program], stdout=subprocess.DEVNULL)
        try:
            peers.specialise(shared / "sock", SHARED, 1)
            if ask(shared / "sock", "/") != "hello":
                raise RuntimeError("the handler in the container did not say hello")
            return (time.perf_counter() - began) * 1e3
        finally:
            _quietly([*self.command, "rm", "--force", shared.name])
            run.wait(_START_SECONDS)


@contextmanager
def docker() -> Iterator[Engine]:
    """Docker Engine, started for this."""
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("there is no dockerd (Debian: docker.io)")
    with _folder("docker") as folder, (folder / "log").open("wb") as log:
        places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        own = [f"--{option}={folder / name}" for option, name in places.items()]
        socket = f"unix://{folder}/sock"
        daemon = subprocess.Popen(
            [program, f"--host={socket}", *own, *_ALONE],
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            command = ["docker", f"--host={socket}"]
            _wait_until_it_answers(command, daemon, folder / "log")
            yield _with_image(command, folder)
        finally:
            daemon.terminate()
            daemon.wait(_START_SECONDS)


@contextmanager
def podman() -> Iterator[Engine]:
    """podman, with storage of its own."""
    if shutil.which("podman") is None:
        raise FileNotFoundError("there is no podman (Debian: podman)")
    with _folder("podman") as folder:
        places = {"root": "root", "runroot": "run", "tmpdir": "tmp"}
        own = [f"--{option}={folder / name}" for option, name in places.items()]
        # Its usual one, crun, takes no machine that has both kinds of cgroup trees.
        usual = [
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            f"--runtime={shutil.which('runc') or 'crun'}",
        ]
        command = ["podman", *own, *usual]
        yield _with_image(command, folder)


ENGINES: dict[str, Callable[[], AbstractContextManager[Engine]]] = {"docker": docker, "podman": podman}


@contextmanager
def _folder(name: str) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=f"martlet-bench-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        _wait_for_ends(folder)
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for place in sorted((each for each in mounts if each.startswith(f"{folder}/")), reverse=True):
            _quietly(["umount", "--lazy", place])
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_ends(folder: Path) -> None:
    """Returns once no process has a folder on its command line: podman tidies up after itself some time later."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and any(
        _names(process, folder) for process in Path("/proc").glob("[0-9]*")
    ):
        time.sleep(0.05)


def _names(process: Path, folder: Path) -> bool:
    with suppress(OSError):
        return f"{folder}/".encode() in (process / "cmdline").read_bytes()
    return False


def _with_image(command: list[str], folder: Path) -> Engine:
    """Makes an image of the same root that containers of Martlet have: the machine's own folders are shown in it."""
    root = asyncio.run(HostRoots(folder / "roots", "").of(Catalogue.load().resolve("python")))
    (root.path / SHARED.lstrip("/")).mkdir(exist_ok=True)
    packed = subprocess.run(["tar", "-C", str(root.path), "-c", "."], check=True, capture_output=True).stdout
    subprocess.run([*command, "import", "-", IMAGE], input=packed, check=True, capture_output=True)
    return Engine(command, root, folder)


def _wait_until_it_answers(command: list[str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while subprocess.run([*command, "version"], capture_output=True, check=False).returncode != 0:
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Docker Engine did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.05)


def _quietly(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, check=False)
