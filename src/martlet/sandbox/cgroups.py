"""Limits that hold for a sandbox as a whole: memory, CPU, processes.

The kernel has one tree of groups (v2) or one tree for each controller (v1); here a group is a name in
either. It is made ahead of time and joined by writing ``0`` to each of its *doors*: descriptors, opened by
whoever made it, so that the joining process needs no path. Joining costs milliseconds when it happens alone
(the kernel waits until every core has passed a quiet point; see `moves`) and next to nothing in a burst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids", "cpu")
USUAL_WEIGHT = 100
_USUAL_SHARES = 1024
_PERIOD_US = 100_000
_REMOVAL_SECONDS = 5.0
_RETRY_SECONDS = 0.002
_FILE_BYTES = 4096
"""More than any file has that says what a group uses."""
REST = "rest"
"""The group that processes are moved to where theirs hands on controllers, by its name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory`` in bytes, ``cpu`` in thousandths of a core (None: all), ``processes`` counts threads too."""

    memory: int
    cpu: int | None
    processes: int

    @property
    def quota_us(self) -> int:
        """Microseconds of CPU in each period; -1 means no limit."""
        return -1 if self.cpu is None else self.cpu * _PERIOD_US // 1000


class Usage(NamedTuple):
    """What a group uses now; ``oom_kills`` counts the processes that the kernel ended in it for memory."""

    memory_bytes: int
    cpu_ms: float
    processes: int
    oom_kills: int


class Group(ABC):
    """A named group and the groups below it. Nothing exists on the host before `create`."""

    _gates: tuple[str, ...] = (".",)

    def __init__(self, directories: dict[str, Path]) -> None:
        self._directories = directories
        # Controllers that are mounted together share a directory.
        self._distinct = tuple(dict.fromkeys(directories.values()))

    def __str__(self) -> str:
        return str(self._distinct[0])

    def below(self, name: str) -> Group:
        """Returns the group ``name`` inside of this one."""
        return type(self)({controller: path / name for controller, path in self._directories.items()})

    def writable(self) -> bool:
        """Whether this process may make groups below, and move processes there."""
        needed = [directory / name for directory in self._distinct for name in self._gates]
        return all(os.access(path, os.W_OK) for path in needed)

    def create(self) -> None:
        """Makes the group and those above it."""
        for directory in self._distinct:
            directory.mkdir(parents=True, exist_ok=True)

    def open_doors(self) -> list[int]:
        """Returns descriptors; a process joins the group by writing ``0`` to each. The caller closes them."""
        return [
            os.open(directory / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for directory in self._distinct
        ]

    def names(self) -> set[str]:
        """Returns the names of the groups directly below."""
        found: set[str] = set()
        for directory in self._distinct:
            with contextlib.suppress(FileNotFoundError):
                found.update(entry.name for entry in os.scandir(directory) if entry.is_dir())
        return found

    @property
    def directories(self) -> list[str]:
        """Where the group is, in each tree."""
        return [str(directory) for directory in self._distinct]

    def holds(self, pid: int) -> bool:
        """Whether a process is in it."""
        return all(pid in _processes(directory) for directory in self._distinct)

    @abstractmethod
    def limits(self) -> Limits | None:
        """Returns the limits that hold, or None where there is none for memory or processes, or no group."""

    @abstractmethod
    def limit(self, limits: Limits, before: Limits | None = None) -> None:
        """Sets the limits, as far as they are not those that were set ``before``."""

    @abstractmethod
    def weigh(self, weight: int) -> None:
        """Sets what the group gets of a core beside others that want it: `USUAL_WEIGHT` is what each gets at first."""

    @abstractmethod
    def usage(self) -> Usage | None:
        """Returns what the group uses, or None when it is gone."""

    def cpu_ms(self) -> float | None:
        """Returns the CPU that the group has used, or None when it is gone; `usage` reads more."""
        try:
            return self._cpu_ms()
        except OSError:
            return None

    @abstractmethod
    def _cpu_ms(self) -> float: ...

    def kill(self) -> None:
        """Kills what is in the group and below. Processes end a little later than this returns."""
        for pid in {pid for directory in self._tree() for pid in _processes(directory)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> bool:
        """Removes the group and those below; returns False while processes still end in it."""
        # Most have none below.
        return all(_rmdir(directory) for directory in self._distinct) or all(map(_rmdir, self._tree()))

    def empty(self, deadline: float) -> None:
        """Kills what is in the group and removes it; gives up at a time of the monotonic clock."""
        while not self.remove() and time.monotonic() < deadline:
            self.kill()
            time.sleep(_RETRY_SECONDS)

    def _tree(self) -> Iterator[Path]:
        """Yields the directories of the group and those below, the deepest first."""
        for top in self._distinct:
            for directory, _, _ in os.walk(top, topdown=False):
                yield Path(directory)

    # Every cell has its limits set, and some files read: what Python's own files would add to that is most of it.

    def _write(self, controller: str, name: str, value: object) -> None:
        descriptor = os.open(f"{self._directories[controller]}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"%b\n" % str(value).encode())
        finally:
            os.close(descriptor)

    def _write_where_known(self, controller: str, name: str, value: object) -> None:
        """Writes to a file that not every kernel has."""
        with contextlib.suppress(FileNotFoundError):
            self._write(controller, name, value)

    def _read(self, controller: str, name: str) -> str:
        descriptor = os.open(f"{self._directories[controller]}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _FILE_BYTES).decode()
        finally:
            os.close(descriptor)


class GroupV1(Group):
    """A directory in the tree of each controller; ``cpuacct`` is needed for `usage` beside `CONTROLLERS`."""

    def limits(self) -> Limits | None:
        """Returns the limits that hold; rounded as the kernel does that."""
        try:
            quota = int(self._read("cpu", "cpu.cfs_quota_us"))
            period = int(self._read("cpu", "cpu.cfs_period_us"))
            memory, processes = self._read("memory", "memory.limit_in_bytes"), self._read("pids", "pids.max")
            return Limits(int(memory), None if quota < 0 else quota * 1000 // period, int(processes))
        except (OSError, ValueError):
            return None

    def limit(self, limits: Limits, before: Limits | None = None) -> None:
        """Sets the limits. Two that not every kernel has get what memory gets: memory and swap together, and what lies
        in sockets of TCP and UDP, which is counted apart, and only for sockets made after it has a limit.
        """
        if before is None or limits.memory != before.memory:
            # That of memory and swap may never be below that of memory alone, which may be raised here.
            self._write_where_known("memory", "memory.memsw.limit_in_bytes", -1)
            self._write("memory", "memory.limit_in_bytes", limits.memory)
            for name in ("memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"):
                self._write_where_known("memory", name, limits.memory)
        if before is None:
            self._write("cpu", "cpu.cfs_period_us", _PERIOD_US)
        if before is None or limits.cpu != before.cpu:
            self._write("cpu", "cpu.cfs_quota_us", limits.quota_us)
        if before is None or limits.processes != before.processes:
            self._write("pids", "pids.max", limits.processes)

    def usage(self) -> Usage | None:
        """Returns what the group uses, or None when it is gone."""
        try:
            return Usage(
                memory_bytes=int(self._read("memory", "memory.usage_in_bytes")),
                cpu_ms=self._cpu_ms(),
                processes=int(self._read("pids", "pids.current")),
                oom_kills=_counters(self._read("memory", "memory.oom_control")).get("oom_kill", 0),
            )
        except OSError:
            return None

    def weigh(self, weight: int) -> None:
        """Sets what the group gets of a core beside others that want it."""
        self._write("cpu", "cpu.shares", weight * _USUAL_SHARES // USUAL_WEIGHT)

    def _cpu_ms(self) -> float:
        return int(self._read("cpuacct", "cpuacct.usage")) / 1e6


class GroupV2(Group):
    """A directory in the one tree."""

    _gates = (".", "cgroup.procs", "cgroup.subtree_control")

    def create(self) -> None:
        """Makes the group and those above it, and hands them the controllers."""
        (directory,) = self._distinct
        missing = [path for path in (directory, *directory.parents) if not path.exists()]
        for path in reversed(missing):
            self._hand_on_controllers(path.parent)
            path.mkdir(exist_ok=True)

    def limits(self) -> Limits | None:
        """Returns the limits that hold; rounded as the kernel does that."""
        try:
            quota, period = self._read("cpu", "cpu.max").split()
            cpu = None if quota == "max" else int(quota) * 1000 // int(period)
            return Limits(int(self._read("memory", "memory.max")), cpu, int(self._read("pids", "pids.max")))
        except (OSError, ValueError):
            return None

    def limit(self, limits: Limits, before: Limits | None = None) -> None:
        """Sets the limits; a group out of memory ends as a whole."""
        if before is None or limits.memory != before.memory:
            self._write("memory", "memory.max", limits.memory)
        if before is None:
            self._write_where_known("memory", "memory.swap.max", 0)
            self._write("memory", "memory.oom.group", 1)
        if before is None or limits.cpu != before.cpu:
            self._write("cpu", "cpu.max", f"{'max' if limits.cpu is None else limits.quota_us} {_PERIOD_US}")
        if before is None or limits.processes != before.processes:
            self._write("pids", "pids.max", limits.processes)

    def usage(self) -> Usage | None:
        """Returns what the group uses, or None when it is gone."""
        try:
            return Usage(
                memory_bytes=int(self._read("memory", "memory.current")),
                cpu_ms=self._cpu_ms(),
                processes=int(self._read("pids", "pids.current")),
                oom_kills=_counters(self._read("memory", "memory.events")).get("oom_kill", 0),
            )
        except OSError:
            return None

    def weigh(self, weight: int) -> None:
        """Sets what the group gets of a core beside others that want it."""
        self._write("cpu", "cpu.weight", weight)

    def _cpu_ms(self) -> float:
        return _counters(self._read("cpu", "cpu.stat"))["usage_usec"] / 1000

    def _hand_on_controllers(self, directory: Path) -> None:
        control = directory / "cgroup.subtree_control"
        wanted = " ".join(f"+{controller}" for controller in self._directories)
        try:
            control.write_text(wanted)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # Only the true top may both have processes and hand on controllers; a container's top is not it.
            _move_processes(directory, directory / REST)
            control.write_text(wanted)

    def kill(self) -> None:
        """Kills what is in the group and below, at once where the kernel can (5.14)."""
        (directory,) = self._distinct
        if (directory / "cgroup.kill").exists():
            (directory / "cgroup.kill").write_text("1")
        else:
            super().kill()


class Remains:
    """A group that another process made, held by descriptor: for one that will not find it by path any more.

    Args:
        directories: where it is, or will be, in each tree.
    """

    def __init__(self, directories: Iterable[str]) -> None:
        paths = [Path(directory) for directory in directories]
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._places = [(os.open(path.parent, flags), path.name) for path in paths]

    def remove(self, below: Iterable[str]) -> None:
        """Kills what is in the groups ``below``, and removes them and whatever else is empty; changes the directory."""
        names = list(below)
        deadline = time.monotonic() + _REMOVAL_SECONDS
        for place, name in self._places:
            os.fchdir(place)
            for each in names:
                GroupV1({"": Path(name, each)}).empty(deadline)
            GroupV1({"": Path(name)}).remove()


def _rmdir(directory: Path) -> bool:
    """Removes a directory; returns False while there is something in it."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _processes(directory: Path) -> list[int]:
    try:
        pids = [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
        # A process of another PID namespace is 0, which would mean the caller's own group to `kill`.
        return [pid for pid in pids if pid]
    except FileNotFoundError:
        return []


def _move_processes(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for pid in _processes(source):
        with contextlib.suppress(ProcessLookupError):
            (target / "cgroup.procs").write_text(f"{pid}\n")


def _counters(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}
