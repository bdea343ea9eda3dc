"""What functions written in Kotlin are built with: the programs of a JDK, and Kotlin's compiler."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import _martlet_jvm as jvm  # type: ignore[import-not-found]

SHIM = Path(__file__).with_name("shim")
OPEN_RUNTIMES = "openruntimes.jar"
"""Where the part of the shim is that is written in Kotlin."""


class Toolchain(jvm.Toolchain):  # type: ignore[misc]
    """Java's, with Kotlin's compiler.

    Args:
        java: the program ``java``.
        javac: the program ``javac``.
        kotlinc: the program ``kotlinc``.
    """

    def __init__(self, java: str, javac: str, kotlinc: str) -> None:
        super().__init__(java, javac)
        self._program = java
        self._kotlinc = kotlinc

    def library(self) -> Path:
        """Returns the jar of Kotlin's standard library, which lies beside the compiler."""
        found = [
            jar
            for jar in Path(self._kotlinc).parents[1].glob("lib/kotlin-stdlib*.jar")
            if jar.stem.removeprefix("kotlin-stdlib").lstrip("-0123456789.") == ""
        ]
        return found[0]

    def compile_kotlin(
        self, sources: Sequence[Path], classpath: Sequence[Path], jar: Path, *resources: Path
    ) -> None:
        """Compiles Kotlin into a jar, together with what lies in the folders of resources.

        Raises:
            BuildFailed: the compiler refuses it.
        """
        with tempfile.TemporaryDirectory() as classes:
            path = os.pathsep.join(map(str, classpath))
            options = ["-no-stdlib", "-no-reflect", "-jvm-target", "17", "-cp", path, "-d", classes]
            started = {"JAVACMD": self._program, "JAVA_OPTS": " ".join(self.options("kotlinc"))}
            jvm.run([self._kotlinc, *options, *map(str, sources)], started)
            jvm.write_jar(jar, Path(classes), *resources)
