"""Looks for what belongs to the host, the platform or its neighbours."""

import contextlib
import ctypes
import os
import re
import stat
import sys

from attempts import handle as handle
from attempts import readable

SHARED = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/proc", sys.base_prefix)


def read(*paths):
    """Which of these files it can read."""
    return [path for path in paths if readable(path)]


def present(*paths):
    """Which of these paths there are."""
    return [path for path in paths if os.path.lexists(path)]


def listing(folder):
    """What lies in a folder, if there is one."""
    return os.listdir(folder) if os.path.isdir(folder) else []


def search_files(pattern):
    """Reads every file that is not the host's system, and names those that hold a secret."""
    secret = re.compile(pattern.encode())
    found = []
    for folder, folders, names in os.walk("/"):
        folders[:] = [name for name in folders if not os.path.join(folder, name).startswith(SHARED)]
        for path in (os.path.join(folder, name) for name in names):
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as file:
                    if secret.search(file.read()):
                        found.append(path)
            except OSError:
                continue
    return found


def search_memory(pattern):
    """Reads all of its own memory, which a zygote has filled before, and counts the secrets in it."""
    secret = re.compile(pattern.encode())
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[:2] for line in maps if "[v" not in line]
    found = 0
    for place, rights in ranges:
        start, end = (int(each, 16) for each in place.split("-"))
        if rights.startswith("rw"):
            found += len(secret.findall(ctypes.string_at(start, end - start)))
    return found


def search_processes(pattern):
    """Reads command line and environment of every process it can see."""
    secret = re.compile(pattern.encode())
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(PermissionError), open(f"/proc/{pid}/{name}", "rb") as file:
                if secret.search(file.read()):
                    found.append(f"/proc/{pid}/{name}")
    return found


def prefix():
    """Where its interpreter is."""
    return sys.base_prefix


def mounts():
    """Every mount point there is."""
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file]


def same_root():
    """Whether the root of process 1 is this root, where it may know, and the one it came from is gone."""
    with contextlib.suppress(PermissionError):
        if not os.path.samefile("/proc/1/root", "/"):
            return False
    return os.path.samefile("/..", "/")


def own_command_line():
    """Where its own is to be seen."""
    return f"/proc/{os.getpid()}/cmdline"


def kernel_addresses():
    """How many addresses of the kernel it is told."""
    try:
        with open("/proc/kallsyms") as symbols:
            return sum(int(line.split()[0], 16) != 0 for line in symbols)
    except OSError:
        return 0
