"""Compiles the shim for all functions written in Java. Arguments: the programs java and javac."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _martlet_jvm as jvm  # type: ignore[import-not-found]


def prepare() -> None:
    """Puts into the cache the shim, and the classes that the compiler took for it as an archive."""
    jvm.Toolchain(*sys.argv[1:]).shim()


jvm.main(prepare)
