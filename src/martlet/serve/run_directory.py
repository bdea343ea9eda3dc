"""The folder of sockets and pipes: made for one life of a platform, in memory, and removed after it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Mount

_IN_MEMORY = ("tmpfs", "ramfs")
_FLAGS = Mount.NO_SUID | Mount.NO_DEV
_OPTIONS = "mode=700,size=25%"


def make(run: Path) -> None:
    """Makes the directory anew, in one that is there and that nobody else can change.

    A start makes three files and an end removes them, which can take a disk longer than all that the lane does besides.
    So root mounts memory there, where ``/run`` is not in memory already, as in many containers.
    """
    remove(run)  # an engine that was tried has left its folder there
    run.mkdir(mode=0o700)
    if os.geteuid() == 0 and not _is_in_memory(run):
        with suppress(OSError):  # a container may not let its root do so: then it is on the disk
            syscalls.mount("tmpfs", str(run), _FLAGS, _OPTIONS)


def remove(run: Path) -> None:
    """Removes the directory with all that is in it, if it is there."""
    if os.path.ismount(run):
        with suppress(OSError):
            syscalls.unmount(str(run))
    shutil.rmtree(run, ignore_errors=True)


def _is_in_memory(folder: Path) -> bool:
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        if mount.split()[2] == number:
            return file_system.split()[0] in _IN_MEMORY
    return False
