"""Builds functions written in Kotlin. Arguments: the folder of Java's runtime, the programs java, javac and kotlinc."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
sys.path.insert(0, str(Path(__file__).parent))

import _martlet_jvm as jvm  # type: ignore[import-not-found]
import _martlet_kotlin as kotlin  # type: ignore[import-not-found]


def build() -> None:
    """Compiles what is in the working directory: with Maven where there is a pom.xml, else all Kotlin sources."""
    toolchain = kotlin.Toolchain(*sys.argv[2:])
    shim = toolchain.shim()
    toolchain.collect()
    if Path("pom.xml").exists():
        toolchain.maven(shim)
    elif sources := jvm.sources(".kt"):
        jvm.LIBRARIES.mkdir(exist_ok=True)
        shutil.copyfile(toolchain.library(), jvm.LIBRARIES / "kotlin-stdlib.jar")
        if any("io.openruntimes.kotlin" in path.read_text(errors="replace") for path in sources):
            shutil.copyfile(toolchain.prepared / kotlin.OPEN_RUNTIMES, jvm.LIBRARIES / kotlin.OPEN_RUNTIMES)
        resources = Path("src/main/resources")
        toolchain.compile_kotlin(sources, [shim, *jvm.libraries()], jvm.FUNCTION, resources)
    toolchain.finish()


jvm.main(build)
