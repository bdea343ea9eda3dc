"""Builds functions written in Kotlin. Arguments: the folder of Java's runtime, the programs java, javac and kotlinc."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, sys.argv[1])

import _martlet_jvm as jvm  # type: ignore[import-not-found]

_OPEN_RUNTIMES = "io.openruntimes.kotlin"


def build() -> None:
    """Compiles what is in the working directory: with Maven where there is a pom.xml, else all Kotlin sources."""
    java, javac, kotlinc = sys.argv[2:]
    toolchain = jvm.Toolchain(java, javac)
    shim = toolchain.shim()
    toolchain.collect()
    if Path("pom.xml").exists():
        toolchain.maven(shim)
    elif sources := jvm.sources(".kt"):
        _compile(java, kotlinc, sources, shim)
    toolchain.finish()


def _compile(java: str, kotlinc: str, sources: list[Path], shim: Path) -> None:
    jvm.LIBRARIES.mkdir(exist_ok=True)
    for library in Path(kotlinc).parents[1].glob("lib/kotlin-stdlib*.jar"):
        if library.stem.removeprefix("kotlin-stdlib").lstrip("-0123456789.") == "":
            shutil.copyfile(library, jvm.LIBRARIES / "kotlin-stdlib.jar")
    if any(_OPEN_RUNTIMES in path.read_text(errors="replace") for path in sources):
        sources = [*sources, *sorted(Path(__file__).with_name("shim").rglob("*.kt"))]
    with tempfile.TemporaryDirectory() as classes:
        classpath = os.pathsep.join(map(str, [shim, *jvm.libraries()]))
        options = ["-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", classpath, "-d", classes]
        jvm.run([kotlinc, *options, *map(str, sources)], {"JAVACMD": java, "JAVA_OPTS": " ".join(jvm.QUICK)})
        jvm.write_jar(jvm.FUNCTION, Path(classes), Path("src/main/resources"))


jvm.main(build)
