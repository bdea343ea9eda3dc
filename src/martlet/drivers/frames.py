"""What containers of a runtime are, whatever starts them: a root, and an interpreter in it that gets a task."""

from __future__ import annotations

import json
from dataclasses import asdict

from martlet.drivers.mandatory import Labels
from martlet.drivers.roots import Root
from martlet.runtimes.runtime import RUNTIME, RUNTIMES, SHIPPED
from martlet.sandbox.bundle import SANDBOX, Frame
from martlet.sandbox.inside import Task

_BOOTSTRAP = f"""
import json, sys
sys.path.insert(0, {SANDBOX!r})
from martlet.sandbox import inside
sys.path.remove({SANDBOX!r})
inside.main(json.loads(sys.argv[1]))
"""
NO_LABELS = Labels()


def options(task: Task) -> list[str]:
    """Returns with what an interpreter is started that does a task in a container."""
    return ["-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, json.dumps(asdict(task))]


def frame_of(root: Root, task: Task, labels: Labels = NO_LABELS) -> Frame:
    """Returns what a container with a root is that does a task; ``labels`` are of AppArmor or SELinux."""
    return Frame(
        root=str(root.path),
        binds={**root.binds, RUNTIME: str(root.runtime.folder), RUNTIMES: str(SHIPPED)},
        command=[str(root.runtime.interpreter), *options(task)],
        profile=labels.profile,
        process_label=labels.process,
        file_label=labels.files,
    )
