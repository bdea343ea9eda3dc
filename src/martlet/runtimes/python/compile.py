"""Compiles Python code ahead of time: functions cannot write, so each cold start would compile it anew.

The results are never checked against their source, since files of a package have no times.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import resource
from pathlib import Path

WORTH_COMPILING = 16 * 1024
"""Bytes of source: compiling takes about a millisecond for each KiB, at each cold start."""
_FUNCTION = "/function"
_MEMORY = 1024**3
"""Bytes it may take: the compiler takes up to four hundred for each of some sources, which then stay as they are."""


def compile_folder(folder: Path, mount: str) -> None:
    """Compiles what can be compiled: there may be modules for other versions of Python, and some that are too large.

    Args:
        folder: what to compile.
        mount: where functions see it; compiled modules name their source there.
    """
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    compileall.compile_dir(
        folder,
        maxlevels=100,
        quiet=2,
        stripdir=str(folder),
        prependdir=mount,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    source = Path(os.environ["MARTLET_SOURCE"])
    modules = (path for path in source.rglob("*.py") if path.is_file() and not path.is_symlink())
    if sum(path.stat().st_size for path in modules) >= WORTH_COMPILING:
        print("compiling")
        compile_folder(source, _FUNCTION)
