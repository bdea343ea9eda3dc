"""The jail of one microVM: a chroot that Firecracker's jailer finishes and enters, and its removal.

    <base>/<name of the executable>/<id>/root/      what Firecracker sees as ``/``
        api.sock                                    its API, made by Firecracker
        v.sock, v.sock_<port>                       the guest's vsock (see `vsock`)
        <what was furnished>                        kernel, drives, snapshot
        firecracker, dev/, run/, firecracker.pid    made by the jailer

The jailer must be started as root and be of the same release as Firecracker.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Literal

from martlet.microvm.firecracker.errors import JailError
from martlet.microvm.firecracker.sockets import MAX_SOCKET_PATH
from martlet.package.staging import remove_tree
from martlet.sandbox.cgroups import Limits
from martlet.sandbox.hierarchies import find_everywhere

API_SOCKET, VSOCK = "api.sock", "v.sock"
"""As Firecracker sees them: it is started with ``/`` as its directory."""
_LONGEST_PORT = 10
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_SETTING = re.compile(r"[a-z0-9_]+(\.[A-Za-z0-9_]+)+")
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
_PERIOD_US = 100_000
_END_SECONDS = 5.0
_RETRY_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Furnishing:
    """A file for the jail.

    Attributes:
        name: of the file, in the root of the jail.
        source: where it is now.
        writable: whether Firecracker writes to it. It gets a copy of its own then; what it only reads is linked, where
            the link can be read and cannot be written to by it.
    """

    name: str
    source: Path
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Jail:
    """A jail as data. Nothing exists on the host before `furnish`.

    Attributes:
        id: names the microVM: letters, digits and hyphens, at most 64, and nobody else's.
        base: the folder of all jails; keep its path short, because sockets are below it.
        executable: Firecracker.
        uid: the user that Firecracker becomes.
        gid: its group.
        netns: the path of a network namespace to join.
        new_pid_ns: whether Firecracker is process 1 of a PID namespace; the process that was started ends then.
        daemonize: whether it leaves session and terminal; the process that was started goes on as Firecracker then.
        cgroup_version: of the trees that limits are set in.
        parent_cgroup: the group above its own, as a path below the top.
        cgroups: what is written to its group, by file (`limits_as_settings`).
        max_file_bytes: the largest file that it may write.
        max_open_files: how many it may have open; the jailer's own bound is 2048.
    """

    id: str
    base: Path
    executable: Path
    uid: int
    gid: int
    netns: Path | None = None
    new_pid_ns: bool = False
    daemonize: bool = False
    cgroup_version: Literal[1, 2] = 2
    parent_cgroup: str | None = None
    cgroups: Mapping[str, str] = field(default_factory=dict)
    max_file_bytes: int | None = None
    max_open_files: int | None = None

    def __post_init__(self) -> None:
        """Refuses what the jailer would, and what would not be a jail.

        Raises:
            JailError: the message names the field.
        """
        _demand(_ID.fullmatch(self.id), "id", "use 1 to 64 letters, digits and hyphens")
        _demand("firecracker" in self._name, "executable", f"{self._name} must have firecracker in its name")
        _demand(self.uid > 0 and self.gid > 0, "uid, gid", "give it a user and a group that are not root's")
        _demand(self.base.is_absolute(), "base", "give an absolute path")
        parent = Path(self.parent_cgroup or ".")
        outside = parent.is_absolute() or ".." in parent.parts or self.parent_cgroup == ""
        _demand(not outside, "parent_cgroup", "give a path below the top of the trees, without ..")
        for name, value in self.cgroups.items():
            good = _SETTING.fullmatch(name) and value and "=" not in value
            _demand(
                good, f"cgroups.{name}", "write a file of a controller (memory.max) and a value without ="
            )
        longest = len(bytes(self.vsock)) + len("_") + _LONGEST_PORT
        _demand(
            longest <= MAX_SOCKET_PATH,
            "base",
            f"the paths of sockets would have {longest} bytes and may have {MAX_SOCKET_PATH}: choose a shorter folder "
            "or id",
        )

    @property
    def _name(self) -> str:
        """What the jailer calls the folder of all jails of this executable: it follows links."""
        return self.executable.resolve().name

    @property
    def folder(self) -> Path:
        """All that it has of the file system."""
        return self.base / self._name / self.id

    @property
    def root(self) -> Path:
        """What Firecracker sees as ``/``."""
        return self.folder / "root"

    @property
    def api_socket(self) -> Path:
        """Where the API is, seen from the host."""
        return self.root / API_SOCKET

    @property
    def vsock(self) -> Path:
        """Where the guest's vsock is, seen from the host."""
        return self.root / VSOCK

    def command(self, jailer: Path, arguments: Iterable[str] = ()) -> list[str]:
        """Returns the command line.

        Args:
            jailer: the program.
            arguments: further ones for Firecracker.
        """
        command = [str(jailer), "--id", self.id, "--exec-file", str(self.executable)]
        command += ["--uid", str(self.uid), "--gid", str(self.gid), "--chroot-base-dir", str(self.base)]
        if self.netns is not None:
            command += ["--netns", str(self.netns)]
        if self.new_pid_ns:
            command.append("--new-pid-ns")
        if self.daemonize:
            command.append("--daemonize")
        if self.cgroups or self.parent_cgroup is not None:
            command += ["--cgroup-version", str(self.cgroup_version)]
        if self.parent_cgroup is not None:
            command += ["--parent-cgroup", self.parent_cgroup]
        for name, value in self.cgroups.items():
            command += ["--cgroup", f"{name}={value}"]
        for name, bound in (("fsize", self.max_file_bytes), ("no-file", self.max_open_files)):
            if bound is not None:
                command += ["--resource-limit", f"{name}={bound}"]
        return [*command, "--", "--api-sock", API_SOCKET, *arguments]

    def furnish(self, furnishings: Iterable[Furnishing]) -> None:
        """Makes the root of the jail and puts files into it; a file of the same name is replaced.

        Raises:
            JailError: a file is missing, or its name is no name.
            OSError: the disk is full, say; call `remove`.
        """
        self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
        for each in furnishings:
            _demand(
                each.name not in ("", ".", "..") and "/" not in each.name and "\0" not in each.name,
                f"furnishing {each.name!r}",
                "give a plain name of a file",
            )
            source = each.source.resolve()
            _demand(source.is_file(), f"furnishing {each.name!r}", f"there is no file {each.source}")
            target = self.root / each.name
            target.unlink(missing_ok=True)
            if not (not each.writable and self._may_share(source) and _link(source, target)):
                shutil.copyfile(source, target)
                os.chown(target, self.uid, self.gid)
                target.chmod(0o600 if each.writable else 0o400)

    def remove(self) -> None:
        """Ends what lives in the jail and removes all of it; harmless when there is nothing left.

        Whoever has started the jailer ends and awaits that process first: until it has entered the jail it is not
        known to live there.

        Raises:
            JailError: something does not end.
        """
        deadline = monotonic() + _END_SECONDS
        while self._end_inhabitants():
            _demand(
                monotonic() < deadline, f"jail {self.id}", f"a process in {self.root} does not end: reboot"
            )
            sleep(_RETRY_SECONDS)
        if self.cgroups or self.parent_cgroup is not None:
            group = find_everywhere(Path("/proc/self/mountinfo").read_text())
            for name in (*Path(self.parent_cgroup or self._name).parts, self.id):
                group = group.below(name)
            group.empty(deadline)
            _demand(group.remove(), f"jail {self.id}", f"a process in {group} does not end: reboot")
        remove_tree(self.folder)
        _demand(not self.folder.exists(), f"jail {self.id}", f"remove {self.folder}: it is not this user's")

    def _may_share(self, source: Path) -> bool:
        """Whether the jail's user can read a file as it is, and cannot write to it."""
        found = source.stat()
        kind = 6 if found.st_uid == self.uid else 3 if found.st_gid == self.gid else 0
        bits = found.st_mode >> kind & 0o7
        return found.st_uid != self.uid and bool(bits & stat.S_IROTH) and not bits & stat.S_IWOTH

    def _end_inhabitants(self) -> bool:
        """Kills the processes that have the jail as their root; returns whether there were any."""
        found = False
        for pidfd in _rooted_in(self.root):
            found = True
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        return found


def limits_as_settings(limits: Limits, version: Literal[1, 2]) -> dict[str, str]:
    """Returns limits as `Jail.cgroups` has them, in the order in which the kernel takes them."""
    if version == 1:
        return {
            "memory.limit_in_bytes": str(limits.memory),
            "cpu.cfs_period_us": str(_PERIOD_US),
            "cpu.cfs_quota_us": str(limits.quota_us),
            "pids.max": str(limits.processes),
        }
    quota = "max" if limits.cpu is None else str(limits.quota_us)
    return {
        "memory.max": str(limits.memory),
        "cpu.max": f"{quota} {_PERIOD_US}",
        "pids.max": str(limits.processes),
    }


def _rooted_in(root: Path) -> Iterator[int]:
    """Yields a pidfd for each process whose root is this folder. The caller closes them."""
    try:
        home = root.stat()
    except FileNotFoundError:
        return
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            pidfd = os.pidfd_open(int(pid))
        except OSError:
            continue
        try:
            lives_there = os.path.samestat(os.stat(f"/proc/{pid}/root"), home)
        except OSError:
            lives_there = False
        if lives_there:
            yield pidfd
        else:
            os.close(pidfd)


def _link(source: Path, target: Path) -> bool:
    """Whether the file could be linked: not to another file system, and not everywhere to other users' files."""
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _demand(condition: object, what: str, remedy: str) -> None:
    if not condition:
        raise JailError(f"{what}: {remedy}")
