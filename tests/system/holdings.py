"""What a platform holds on this machine of everything that could leak, whoever holds it."""

import glob
import os
import socket
import time
from collections import Counter
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from tests.system.conftest import until

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def holdings(platform):
    """Returns how many it has of each kind; of what is to be gone in the end, nothing is there then."""
    run = platform.settings.run_directory
    names = {size: blake2b(bytes(run.absolute()), digest_size=size).hexdigest() for size in (3, 4)}
    mark = f"martlet-{names[4]}"
    members = _members(run, mark)
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in _NAMESPACES}
    held = Counter(kind for _, kind in {each for pid in members for each in _namespaces(pid, own)})
    counts = {
        "processes": len(members),
        "cgroups": len(glob.glob(f"/sys/fs/cgroup/**/{mark}*/**/", recursive=True)),
        "mounts": _mounts(run, members),
        "links": sum(name.startswith(f"m{names[3]}") for _, name in socket.if_nameindex()),
        "sockets": len(glob.glob(f"{run}/lane-*/**/sock", recursive=True)),
        "folders": len(glob.glob(f"{run}/lane-*/*")),
        "memory files": len(set(_memory_files(members))),
        "work on images": len(glob.glob(f"{platform.data}/images/.[gw]o*-*")),
    }
    return counts | {f"{kind} namespaces": count for kind, count in held.items()}


def settled(platform):
    """Returns the holdings once they stay the same: the cells are made that shall stand ready."""
    last = []

    def unchanged():
        time.sleep(0.2)
        last.append(holdings(platform))
        return len(last) > 4 and all(each == last[-1] for each in last[-4:])

    until(unchanged, why="the platform does not settle")
    return last[-1]


def nothing_left(platform):
    """Waits until a platform that was stopped holds nothing: the kernel takes down the last of it a moment later."""
    until(lambda: not any(holdings(platform).values()), why=Surplus(platform, {}))


class Surplus:
    """What a platform has that it had not, worked out when it is printed."""

    def __init__(self, platform, before):
        self.platform, self.before = platform, before

    def __str__(self):
        now = holdings(self.platform)
        differ = {kind: (self.before.get(kind, 0), now.get(kind, 0)) for kind in now | self.before}
        return (
            f"before and after differ: { {kind: pair for kind, pair in differ.items() if len({*pair}) > 1} }"
        )


def _members(run, mark):
    """Returns the living processes of a platform but its supervisor, wherever they are in the tree of processes."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            place = Path("/proc", pid)
            known = (place / "cmdline").read_bytes(), (place / "environ").read_bytes()
            mine = f"{run}/".encode() in b"".join(known) or mark in (place / "cgroup").read_text()
            if mine and (place / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(int(pid))
    return found


def _namespaces(pid, own):
    """Yields the namespaces that a process is in or has open, but for those of the machine."""
    with suppress(OSError):
        links = [f"/proc/{pid}/ns/{kind}" for kind in _NAMESPACES]
        links += [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
        for link in links:
            with suppress(OSError):
                name = os.readlink(link)
                kind = name.partition(":[")[0]
                if kind in own and name != own[kind]:
                    yield name, kind


def _memory_files(members):
    """Yields the files that processes have open and that are in no file system, by their numbers."""
    for pid in members:
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(entry.path).startswith("/memfd:"):
                        yield os.stat(entry.path).st_ino


def _mounts(run, members):
    """Returns how many mounts there are in the platform's folder, in every mount namespace that it has, and in ours."""
    spaces = {}
    for pid in [os.getpid(), *members]:
        with suppress(OSError):
            spaces[os.readlink(f"/proc/{pid}/ns/mnt")] = Path(f"/proc/{pid}/mountinfo").read_text()
    return sum(text.count(f" {run}/") for text in spaces.values())
