"""The folder of sockets and pipes: made for one life of a platform, in memory, and removed after it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from martlet.errors import MartletError
from martlet.sandbox import syscalls
from martlet.sandbox.syscalls import Mount

_IN_MEMORY = ("tmpfs", "ramfs")
_FLAGS = Mount.NO_SUID | Mount.NO_DEV
_OPTIONS = "mode=700,size=25%"


class Intruded(MartletError):
    """The platform does not start because somebody else could reach into it."""

    code, title = "intruded", "Somebody else could reach into the platform"


def make(run: Path) -> None:
    """Makes the directory anew, in one that nobody else can change: in /tmp somebody may have been there before.

    A start makes three files and an end removes them, which can take a disk longer than all that the lane does besides.
    So root mounts memory there, where ``/run`` is not in memory already, as in many containers.

    Raises:
        Intruded: somebody else can change the folder that it is in.
    """
    run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = run.parent.lstat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Intruded(f"{run.parent} must belong to the user of the platform, and to nobody else: remove it")
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
