"""Builds functions written in Java. Arguments: the programs java and javac."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import _martlet_jvm as jvm  # type: ignore[import-not-found]


def build() -> None:
    """Compiles what is in the working directory: with Maven where there is a pom.xml, else all Java sources."""
    toolchain = jvm.Toolchain(*sys.argv[1:])
    shim = toolchain.shim()
    toolchain.collect()
    if Path("pom.xml").exists():
        toolchain.maven(shim)
    elif sources := jvm.sources(".java"):
        resources = Path("src/main/resources")
        toolchain.compile(sources, [shim, *jvm.libraries()], jvm.FUNCTION, resources)
    toolchain.finish()


jvm.main(build)
