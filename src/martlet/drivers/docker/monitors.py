"""What podman knows nothing of: containers that it was starting when it was killed.

Each has a ``conmon``, which podman starts first, and which has the OCI runtime make the container. Podman notes what
has become of it last. One that is killed in between takes the container for one that never ran: told to remove it, it
forgets it, and leaves its processes and its cgroups.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from martlet.drivers.docker.engine import Engine

log = structlog.get_logger()
_PROGRAM = "conmon"
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Monitor:
    """A conmon, as its command line has it.

    Attributes:
        pid: its own.
        name: that of its container, ``container`` its id.
        runtime: the program of the OCI runtime which has made that.
    """

    pid: int
    name: str
    container: str
    runtime: str

    async def end(self) -> None:
        """Ends it, and then its container, which it can no longer make anew."""
        await asyncio.to_thread(_kill, self)
        try:
            process = await asyncio.create_subprocess_exec(
                self.runtime,
                *("delete", "--force", self.container),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await process.communicate()
            words = said.decode(errors="replace").strip() if process.returncode else ""
        except OSError as error:  # the runtime was removed from the machine meanwhile
            words = str(error)
        if words:
            log.warning("forgotten_container_not_removed", container=self.name, error=words)


async def end_forgotten(engine: Engine, labels: Mapping[str, str], prefix: str) -> None:
    """Ends the containers that the engine should have, and does not know.

    Args:
        engine: which; nothing is done unless it is podman.
        labels: what all of them have.
        prefix: what the names of all of them begin with, and those of no others.

    Raises:
        EngineError: it does not answer.
    """
    if not engine.podman:
        return
    found = await asyncio.to_thread(lambda: [each for each in _monitors() if each.name.startswith(prefix)])
    if not found:
        return
    known = await engine.labelled(labels)  # later: what has begun meanwhile is known
    await asyncio.gather(*(each.end() for each in found if each.container not in known))


def _monitors() -> Iterator[Monitor]:
    for place in Path("/proc").glob("[0-9]*"):
        found = _monitor(int(place.name))
        if found is not None:
            yield found


def _monitor(pid: int) -> Monitor | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not words or Path(words[0]).name != _PROGRAM:
        return None
    try:
        name, container, runtime = (words[words.index(option) + 1] for option in ("-n", "-c", "-r"))
    except (ValueError, IndexError):
        return None
    return Monitor(pid, name, container, runtime)


def _kill(monitor: Monitor) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(monitor.pid)
        try:
            if _monitor(monitor.pid) == monitor:  # and not another process of its number
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], _END_SECONDS)
        finally:
            os.close(process)
