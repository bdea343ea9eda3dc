"""Where the engine is: a socket that answers, or podman's service, which is started where none does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from martlet.drivers.docker.engine import PATIENCE, Engine, EngineError
from martlet.sandbox.lifeline import die_with_parent

Name = Literal["docker", "podman"]
_SOCKETS: dict[Name, Path] = {
    "docker": Path("/run/docker.sock"),
    "podman": Path("/run/podman/podman.sock"),
}
_VARIABLES: dict[Name, str] = {"docker": "DOCKER_HOST", "podman": "CONTAINER_HOST"}
_REMEDIES: dict[Name, str] = {
    "docker": "start Docker Engine (Debian: the package docker.io; systemctl start docker), or name its socket in "
    "DOCKER_HOST",
    "podman": "install podman (Debian: the package podman)",
}
WHAT_TO_DO = ". What to do: "
"""What parts the reason from the remedy in a message."""
_NOTE = "engine.json"
_READY_SECONDS = 20.0
_RETRY_SECONDS = 0.02
_UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")


def socket_of(name: Name) -> Path:
    """Returns where an engine listens: as its own variable of the environment says, or where it usually does."""
    said = os.environ.get(_VARIABLES[name], "")
    return Path(said.removeprefix("unix://")) if said.startswith("unix://") else _SOCKETS[name]


class Service:
    """The way to one engine.

    Args:
        name: which.
        own: where podman's service is to listen if it must be started.
        socket: where the engine listens; by default where `socket_of` says.
        options: global ones for a podman that is started (``--root`` and the like).
        patience: seconds that it may take to answer.
    """

    def __init__(
        self,
        name: Name,
        own: Path,
        socket: Path | None = None,
        options: tuple[str, ...] = (),
        patience: float = PATIENCE,
    ) -> None:
        self.name: Name = name
        self._own = own
        self._socket = socket
        self._options = options
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    def another(self) -> Service:
        """Returns another way to the same engine, which may be closed without this one."""
        own = self._own.with_name(f"{self.name}-{os.getpid()}")
        return Service(self.name, own, self._socket, self._options, self._patience)

    def note(self, folder: Path) -> None:
        """Writes down in the directory of a lane which engine this is, for when the lane is gone (`noted`)."""
        said = {
            "name": self.name,
            "socket": str(self._socket or socket_of(self.name)),
            "options": self._options,
        }
        (folder / _NOTE).write_text(json.dumps(said))

    async def reach(self) -> Engine:
        """Returns the engine.

        Raises:
            DriverError: none answers; the message says what to do.
        """
        try:
            return await self._connect()
        except EngineError as error:
            program = shutil.which("podman") if self.name == "podman" else None
            if program is None:
                raise EngineError(f"{error}{WHAT_TO_DO}{_REMEDIES[self.name]}") from error
        async with self._turn:
            try:
                return await self._connect()  # somebody else may have started it meanwhile
            except EngineError:
                return await self._start(program)

    async def _connect(self) -> Engine:
        if self._process is not None:
            with suppress(EngineError):
                return await Engine.connect(self._own, self._patience)
        return await Engine.connect(self._socket or socket_of(self.name), self._patience)

    async def close(self) -> None:
        """Ends the service if this has started it; its containers do not end with it."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()
            self._own.unlink(missing_ok=True)

    async def _start(self, program: str) -> Engine:
        await self.close()
        self._own.parent.mkdir(parents=True, exist_ok=True)
        self._own.unlink(missing_ok=True)
        said = self._own.with_suffix(".log")
        with said.open("wb") as stderr:
            self._process = process = await self._execute(program, stderr)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while True:
                    try:
                        return await Engine.connect(self._own, self._patience)
                    except EngineError:
                        if process.returncode is not None:
                            words = said.read_text(errors="replace").strip().rpartition("\n")[2]
                            raise EngineError(f"podman's service ended: {words}") from None
                    await asyncio.sleep(_RETRY_SECONDS)
        except TimeoutError:
            await self.close()
            raise EngineError(f"podman's service did not answer within {_READY_SECONDS:g} s") from None

    async def _execute(self, program: str, stderr: BinaryIO) -> asyncio.subprocess.Process:
        # With it, it would be a client of another podman.
        environment = {name: value for name, value in os.environ.items() if name != _VARIABLES["podman"]}
        environment["TMPDIR"] = str(
            self._own.parent
        )  # what it leaves there when it is killed goes with the folder
        return await asyncio.create_subprocess_exec(
            program,
            # Nothing that only systemd gives, and no events: nobody listens to them.
            *("--cgroup-manager=cgroupfs", "--events-backend=none", *_runtime(), *self._options),
            *("system", "service", "--time=0", f"unix://{self._own}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=environment,
            cwd=self._own.parent,  # where conmon leaves files
            start_new_session=True,
            preexec_fn=partial(die_with_parent, signal.SIGKILL),
        )


def noted(run: Path) -> Iterator[Service]:
    """Yields the ways to the engines that the lanes of a platform have noted, by its run directory."""
    for note in run.glob(f"lane-*/{_NOTE}"):
        said = json.loads(note.read_text())
        yield Service(
            said["name"], note.with_name("sweep.sock"), Path(said["socket"]), tuple(said["options"])
        )


def _runtime() -> list[str]:
    """Returns the option that has podman take runc where its usual crun does not run: beside cgroups of version 1."""
    return [] if _UNIFIED.exists() or shutil.which("runc") is None else ["--runtime=runc"]
