"""Whether loaded code can be forked: whether each fork would have all of it, and for itself alone.

Everything that a fork would tear apart (threads, child processes) or share with its siblings (descriptors with their
connections and positions, writable shared memory, files of fixed names) is a reason not to.
"""

from __future__ import annotations

import os
import sys

SCRATCH = "/tmp"  # noqa: S108  (the sandbox's own)
_SCRATCH_NAMES = (b"/tmp", b"/dev/shm")


def descriptors() -> dict[int, str]:
    """Returns what this process has open."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # what the list itself was read from
    return found


def obstacle(code: str, before: dict[int, str]) -> str | None:
    """Returns why the code of this process must not be forked, or None.

    Args:
        code: the folder it was loaded from.
        before: the `descriptors` before it was loaded.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        return "loading it started a thread"
    if _has_children():
        return "loading it started a process"
    for number, target in descriptors().items():
        if before.get(number) != target:
            return f"loading it left {target} open"
    if shared := _shared_memory():
        return f"loading it mapped {shared}, which forks would share"
    if getattr(sys.modules.get("tempfile"), "tempdir", None) is not None:
        return "loading it asked for the folder of temporary files, and each instance is to have its own"
    if os.listdir(SCRATCH):
        return f"loading it left files in {SCRATCH}"
    if named := _names_scratch(code):
        return f"{named} names {SCRATCH} or /dev/shm itself, in place of what tempfile says"
    return None


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _shared_memory() -> str | None:
    with open("/proc/self/maps") as maps:
        for line in maps:
            _, permissions, _, _, _, *name = line.split(maxsplit=5)
            if "w" in permissions and "s" in permissions:
                return name[0].strip() if name else "memory"
    return None


def _names_scratch(code: str) -> str | None:
    for folder, _, files in os.walk(code):
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(".py"):
                with open(path, "rb") as file:
                    text = file.read()
                if any(scratch in text for scratch in _SCRATCH_NAMES):
                    return os.path.relpath(path, code)
    return None
