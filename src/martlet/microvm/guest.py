"""The root of a guest, as a file system image: that of containers of a runtime, and what the agent is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import martlet
from martlet.errors import Invalid
from martlet.microvm.agent import RESOLVERS, TASK
from martlet.microvm.base import Base
from martlet.microvm.kernel import INIT
from martlet.microvm.store import check_room
from martlet.runtimes.runtime import RUNTIME, RUNTIMES, SHIPPED, Runtime
from martlet.sandbox import root
from martlet.sandbox.bundle import SANDBOX
from martlet.sandbox.inside import FILTER, Task
from martlet.sandbox.lifeline import die_with_parent
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.policy import Policy

PROGRAM = "mkfs.erofs"
_FOLDERS = (root.FUNCTION, root.DEPENDENCIES, SANDBOX, "/proc", "/sys", "/dev", "/run", root.SCRATCH)
_MODULES = (
    "sandbox",
    *(
        f"microvm/{name}.py"
        for name in (
            "agent",
            "control",
            "firecracker/mmds",
            "folders",
            "links",
            "memory",
            "ports",
            "practice",
            "resident",
            "view",
        )
    ),
)
"""The parts of Martlet that the agent takes."""
_OWN = Path(martlet.__file__).parent
_HOSTS = "127.0.0.1 localhost\n"
_NAMES = "etc/resolv.conf"
_INIT = """#!{interpreter} -ISXutf8
import sys
sys.path.insert(0, {sandbox!r})
from martlet.microvm import agent
sys.path.remove({sandbox!r})
agent.main()
"""


def build_root(base: Base, work: Path, task: Task, at: Path) -> None:
    """Makes the file system image of a guest.

    Args:
        base: what it is made of; that stays as it is.
        work: an empty folder on the same file system, to work in.
        task: what the agent is to do.
        at: the file to make.

    Raises:
        Invalid: this machine has no program that makes one.
        OSError: it could not be made; the disk is full, say.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise Invalid(
            f"execution_mode: microvm takes the program {PROGRAM} (apt-get install erofs-utils)",
            field="config.execution_mode",
        )
    tree, runtime = work / "tree", base.runtime
    shutil.copytree(base.image.root, tree, symlinks=True, copy_function=os.link)
    for path in base.programs:
        place = tree / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(path, place)
    for folder in _FOLDERS:
        (tree / folder[1:]).mkdir(exist_ok=True)
    shutil.copytree(runtime.folder, tree / RUNTIME[1:], ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SHIPPED, tree / RUNTIMES[1:], ignore=shutil.ignore_patterns("__pycache__"))
    sandbox = tree / SANDBOX[1:]
    for path in _own_parts():
        place = sandbox / "martlet" / path.relative_to(_OWN)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (sandbox / TASK).write_text(json.dumps(asdict(task)))
    (sandbox / FILTER).write_bytes(bpf.compile(Policy.load()))
    init = tree / INIT[1:]
    init.write_text(_INIT.format(interpreter=runtime.interpreter, sandbox=SANDBOX))
    init.chmod(0o755)
    hosts = tree / "etc/hosts"
    hosts.unlink(missing_ok=True)  # which the image shares
    hosts.write_text(_HOSTS)
    (tree / _NAMES).unlink(missing_ok=True)
    (tree / _NAMES).symlink_to(RESOLVERS)
    made = subprocess.run(
        # What is compiled is known to be up to date by the times of the sources.
        [program, "--quiet", "--all-root", "--preserve-mtime", "-x-1", str(at), str(tree)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=partial(die_with_parent),
        text=True,
        check=False,
    )
    if made.returncode != 0:
        check_room(work)
        raise OSError(f"{PROGRAM}: {made.stderr.strip()[-500:]}")
    shutil.rmtree(tree)


def parts_of(runtime: Runtime) -> list[Path]:
    """Returns the files of this machine that a root has besides those of the image."""
    return [*_own_parts(), *(path for folder in (runtime.folder, SHIPPED) for path in _files_in(folder))]


def _own_parts() -> Iterator[Path]:
    for module in _MODULES:
        path = _OWN / module
        yield from _files_in(path) if path.is_dir() else (path,)


def _files_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file() and each.parent.name != "__pycache__")
