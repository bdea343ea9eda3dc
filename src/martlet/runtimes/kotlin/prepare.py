"""Compiles the shim for all functions written in Kotlin. Arguments: as those of `build.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parent))

import _martlet_jvm as jvm  # type: ignore[import-not-found]
import _martlet_kotlin as kotlin  # type: ignore[import-not-found]


def prepare() -> None:
    """Puts into the cache both parts of the shim, and the classes that the compilers took for them as archives."""
    toolchain = kotlin.Toolchain(*sys.argv[2:])
    shim = toolchain.shim()
    jar = Path(os.environ["MARTLET_CACHE"], kotlin.OPEN_RUNTIMES)
    toolchain.compile_kotlin(sorted(kotlin.SHIM.rglob("*.kt")), [shim, toolchain.library()], jar)


jvm.main(prepare)
