"""What this host has of what the process rung needs."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import martlet
from martlet.drivers.driver import Missing
from martlet.sandbox.cgroups import Group, find_top
from martlet.sandbox.rehearsal import FILTER, LANDLOCK

_REHEARSE = """
import sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import rehearsal
rehearsal.main()
"""
_INTERPRETER = "interpreter"
_CONSEQUENCES = {
    _INTERPRETER: "no zygote can be started",
    "mount namespace": "functions see the files of this machine",
    "PID namespace": "functions see the processes of this machine",
    "IPC namespace": "functions share memory segments and queues with this machine",
    "UTS namespace": "functions see and may set the name of this machine",
    "network namespace": "functions reach all that this machine reaches, its own services included",
    "user of its own": "functions run as the user of the platform",
    LANDLOCK: "files of this machine have one wall instead of two",
    FILTER: "functions may make every system call of an unprivileged user",
}


@dataclass(frozen=True, slots=True)
class Host:
    """What there is, and what is missing.

    Attributes:
        confined: whether a sandbox can be made.
        filtered: whether system calls can be filtered.
        top: the top of the cgroup hierarchy, or None where there is none to write to.
        missing: what is lacking, in words for people.
    """

    confined: bool
    filtered: bool
    top: Group | None
    missing: list[Missing]


def inspect(interpreter: Path) -> Host:
    """Returns what this host has; takes some 30 ms, because it tries instead of guessing."""
    refused = _rehearse(interpreter)
    missing = [_missing_sandbox(feature, words) for feature, words in refused.items()]
    top = find_top(Path("/proc/self/mountinfo").read_text())
    if top is None:
        missing.append(_missing_cgroups("this host mounts no cgroup hierarchy with memory, pids and cpu"))
    elif not top.writable():
        missing.append(_missing_cgroups(f"{top} cannot be written to"))
        top = None
    return Host(
        confined=refused.keys() <= {LANDLOCK, FILTER},
        filtered=refused.keys().isdisjoint({FILTER, _INTERPRETER}),
        top=top,
        missing=missing,
    )


def _rehearse(interpreter: Path) -> dict[str, str]:
    folder = Path(martlet.__file__).parent.parent
    tried = subprocess.run(
        [interpreter, "-I", "-S", "-c", _REHEARSE, folder], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        last_line = tried.stderr.strip().rpartition("\n")[2]
        return {_INTERPRETER: last_line or f"it ended with {tried.returncode}"}
    refused: dict[str, str] = json.loads(tried.stdout)
    return refused


def _missing_sandbox(feature: str, words: str) -> Missing:
    if feature == _INTERPRETER:
        remedy = f"repair the Python that Martlet was installed with: {words}"
    elif feature == LANDLOCK:
        remedy = f"start a kernel of 5.13 or newer with landlock in its lsm= list ({words})"
    elif feature == FILTER:
        remedy = f"use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64 ({words})"
    elif os.geteuid() == 0:
        remedy = f"it takes Linux 5.12 or newer, and in a container CAP_SYS_ADMIN ({words})"
    else:
        remedy = "run Martlet as root"
    return Missing(feature, _CONSEQUENCES[feature], remedy, fatal=feature != LANDLOCK)


def _missing_cgroups(reason: str) -> Missing:
    return Missing(
        "cgroups",
        f"memory, CPU and processes of functions have no limit ({reason})",
        "run Martlet as root, and in a container give it the cgroup filesystem writable",
    )
