"""What decides a build besides what was sent: two builds are the same where this is."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from martlet.runtimes import Runtime
from martlet.runtimes.runtime import SHIPPED

_OF_ANOTHER = re.compile(r"\{runtimes\}/(\w+)")


def identity_of(runtime: Runtime) -> str:
    """Returns a digest of versions, of the programs, and of the files of the runtimes whose commands build."""
    parts = [
        runtime.name,
        runtime.version,
        platform.machine(),
        str(runtime.program),
        *map(str, runtime.programs.values()),
    ]
    content = hashlib.sha256("\n".join(parts).encode())
    for folder in (runtime.folder, *sorted(_others(runtime))):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content.update(f"\n{path.relative_to(folder)}\n".encode())
                content.update(path.read_bytes())
    return content.hexdigest()


def _others(runtime: Runtime) -> Iterator[Path]:
    """Yields the folders of other runtimes that the commands of builds name."""
    description = runtime.description
    for part in (description.build, description.dependencies):
        if part is not None:
            named = _OF_ANOTHER.findall(" ".join(part.command))
            yield from (SHIPPED / name for name in set(named) if SHIPPED / name != runtime.folder)
