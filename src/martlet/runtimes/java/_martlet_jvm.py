"""What all languages of the JVM are built with: the shim, jars, Maven, and the archive of classes for fast starts.

A package that has been built has a folder `FOLDER` beside the code: ``shim.jar``, ``function.jar`` with what was
compiled, ``lib`` with its libraries, ``classpath`` (arguments for ``java``) and ``classes.jsa``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

FOLDER = Path(".martlet")
FUNCTION, LIBRARIES = FOLDER / "function.jar", FOLDER / "lib"
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
"""How a JVM gets started that does not live long."""

_SHIM = Path(__file__).with_name("shim")
_SHIM_JAR = "shim.jar"
_API = ("martlet", "martlet-java", "1")
"""What a Maven project names, with the scope ``provided``, to compile against the shim."""
_COORDINATES = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+)")
_COPY = ("org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies",)
_SIDE_PRODUCT = re.compile(r"-(sources|javadoc|tests)\.jar$|^original-")
_ERROR = re.compile(r"^(\[ERROR\].*|.*error: .*)$", re.MULTILINE)
_REHEARSED = (
    b"GET /_martlet/health HTTP/1.1\r\n\r\nGET /raise HTTP/1.1\r\n\r\nGET /pieces HTTP/1.1\r\n\r\n"
    b"GET /text HTTP/1.1\r\nx-request-id: 1\r\n\r\n"
    b'POST /a%20b?c=d HTTP/1.1\r\ncontent-length: 17\r\n\r\n{"a": [1.5, "b"]}'
)
_PROJECT = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    "<groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version>{rest}</project>\n"
)


class BuildFailed(Exception):
    """The code cannot be built. The message is for its author."""


class Toolchain:
    """The programs of a JDK, where a function's builds keep what they make, and what all have in common.

    What runs before the first build (`prepare.py`) makes that, and has nothing in common yet.

    Args:
        java: the program ``java``.
        javac: the program ``javac``.
    """

    def __init__(self, java: str, javac: str) -> None:
        self._java, self._javac = java, javac
        self._cache = Path(os.environ["MARTLET_CACHE"])
        self._temporary = Path(os.environ["TMPDIR"])
        prepared = os.environ.get("MARTLET_PREPARED")
        self.prepared = Path(prepared) if prepared else None

    def options(self, program: str) -> list[str]:
        """Returns how the JVM of a compiler gets started: with the archive of classes that it left when it prepared."""
        if self.prepared is None:
            archive = f"-XX:ArchiveClassesAtExit={self._cache / program}.jsa"
        else:
            archive = f"-XX:SharedArchiveFile={self.prepared / program}.jsa"
        return [*QUICK, "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr", archive]

    def shim(self) -> Path:
        """Puts the shim beside the code, or compiles it for all functions. Returns its jar.

        Raises:
            BuildFailed: the compiler refuses it.
        """
        if self.prepared is None:
            self.compile(sorted(_SHIM.rglob("*.java")), (), self._cache / _SHIM_JAR)
            return self._cache / _SHIM_JAR
        FOLDER.mkdir(exist_ok=True)
        return Path(shutil.copyfile(self.prepared / _SHIM_JAR, FOLDER / _SHIM_JAR))

    def compile(
        self, sources: Iterable[Path], classpath: Sequence[Path], jar: Path, *resources: Path
    ) -> None:
        """Compiles Java into a jar, together with what lies in the folders of resources.

        Raises:
            BuildFailed: the compiler refuses it.
        """
        classes = self._temporary / f"{jar.stem}-classes"
        # The first option silences the warning about sun.misc.Signal, the only way to hear of SIGTERM; with the second
        # no code is made at run time to join strings, which takes long the first time.
        options = [
            "-XDignore.symbol.file=true",
            "-XDstringConcat=inline",
            "-encoding",
            "UTF-8",
            "-proc:none",
            "-parameters",
        ]
        path = ["-cp", _path(classpath)] if classpath else []
        quick = [f"-J{option}" for option in self.options("javac")]
        run([self._javac, *quick, *options, *path, "-d", str(classes), *map(str, sources)])
        write_jar(jar, classes, *resources)

    def maven(self, shim: Path) -> None:
        """Builds a Maven project: its jar becomes `FUNCTION`, and its dependencies are collected in `LIBRARIES`.

        Raises:
            BuildFailed: Maven fails, or makes no jar.
        """
        self._offer(shim, self._cache / "maven")
        self._run_maven(Path("pom.xml"), "-DskipTests", "package", *_COPY)
        made = [path for path in Path("target").glob("*.jar") if not _SIDE_PRODUCT.search(path.name)]
        if len(made) != 1:
            raise BuildFailed(f"pom.xml must make one jar, and target/ has {len(made)}")
        shutil.copyfile(made[0], FUNCTION)
        shutil.rmtree("target")

    def collect(self) -> None:
        """Collects the configured dependencies (``group:artifact:version``), and what they need, in `LIBRARIES`.

        Raises:
            BuildFailed: there is no such library, or it is not named like that.
        """
        named = os.environ["MARTLET_DEPENDENCIES"].split("\n")
        if not any(named):
            return
        entries = ""
        for name in filter(None, named):
            coordinates = _COORDINATES.fullmatch(name)
            if coordinates is None:
                raise BuildFailed(f"the dependency {name!r} must be written as group:artifact:version")
            entries += (
                "<dependency><groupId>{}</groupId><artifactId>{}</artifactId>"
                "<version>{}</version></dependency>"
            ).format(*map(escape, coordinates.groups()))
        project = self._temporary / "pom.xml"
        rest = f"<packaging>pom</packaging><dependencies>{entries}</dependencies>"
        project.write_text(_PROJECT.format("function", "function", "1", rest=rest))
        self._run_maven(project, *_COPY)

    def finish(self) -> None:
        """Writes the class path, and makes the archive of classes.

        Raises:
            BuildFailed: the JVM does not run the shim.
        """
        jars = [FOLDER / _SHIM_JAR, *([FUNCTION] if FUNCTION.exists() else []), *libraries()]
        classpath = FOLDER / "classpath"
        classpath.write_text(f'-cp "{_path(jars)}"\n')
        for jar in jars:
            os.utime(jar, (0, 0))  # the JVM compares times with those in the archive, save for this one
        rehearse(self._java, classpath, self._temporary / "rehearsal.sock")

    def _run_maven(self, project: Path, *goals: str) -> None:
        if shutil.which("mvn") is None:
            raise BuildFailed("it takes Maven, which this machine does not have")
        # What the operator gives to Maven; that takes MAVEN_ARGS itself from 3.9 on only.
        given = os.environ.pop("MAVEN_ARGS", "").split()
        options = [*QUICK, os.environ.get("MAVEN_OPTS", "")]
        home = {"JAVA_HOME": str(Path(self._java).parents[1]), "MAVEN_OPTS": " ".join(options)}
        command = [
            "mvn",
            "-B",
            "-q",
            "--strict-checksums",
            "-f",
            str(project.absolute()),
            f"-Dmaven.repo.local={self._cache / 'maven'}",
            f"-DoutputDirectory={LIBRARIES.absolute()}",
            "-DincludeScope=runtime",
        ]
        run([*command, *given, *goals], home)

    @staticmethod
    def _offer(shim: Path, repository: Path) -> None:
        group, artifact, version = _API
        folder = repository / group / artifact / version
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shim, folder / f"{artifact}-{version}.jar")
        (folder / f"{artifact}-{version}.pom").write_text(_PROJECT.format(*_API, rest=""))


def rehearse(java: str, classpath: Path, path: Path) -> None:
    """Serves some requests by the shim as an instance would, and has the JVM archive the classes that takes.

    Args:
        java: the program.
        classpath: the file with the class path.
        path: where to make a socket.

    Raises:
        BuildFailed: the JVM ends on its own.
    """
    told = {"FUNCTION": "rehearsal", "REVISION": "1", "CONCURRENCY": "1", "MAX_BODY": "1048576"}
    told |= {"HANDLER": "martlet.shim.Rehearsal", "REHEARSED": os.environ["MARTLET_HANDLER"]}
    environment = os.environ | {f"MARTLET_{name}": value for name, value in told.items()}
    archive = f"-XX:ArchiveClassesAtExit={FOLDER / 'classes.jsa'}"
    command = [java, *QUICK, "-Xlog:disable", archive, f"@{classpath}", "martlet.shim.Main"]
    with socket.socket(socket.AF_UNIX) as listener, open(os.devnull, "wb") as answer:
        listener.bind(str(path))
        listener.listen()
        quiet = ["sh", "-c", f'exec "$@" 4>&{answer.fileno()}', "sh", *command]
        with subprocess.Popen(
            quiet,
            stdin=listener.fileno(),
            stdout=answer,
            stderr=answer,
            env=environment,
            pass_fds=(answer.fileno(),),
        ) as process:
            listener.close()
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(path))
                    client.sendall(_REHEARSED)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        continue
            except OSError as error:
                raise BuildFailed("the JVM does not run the shim") from error
            finally:
                process.terminate()


def main(build: Callable[[], None]) -> None:
    """Runs a build; where it fails says why on descriptor 4, and exits with 1."""
    try:
        build()
    except BuildFailed as error:
        with open(4, "w") as answer:
            json.dump({"field": "code", "message": str(error)}, answer)
        sys.exit(1)


def run(command: Sequence[str], environment: dict[str, str] | None = None) -> None:
    """Runs a program and prints what it prints.

    Raises:
        BuildFailed: it exits with another code than 0; the message is its first line about an error.
    """
    done = subprocess.run(
        command,
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        error = _ERROR.search(done.stdout)
        raise BuildFailed(
            error[1].strip() if error else f"{Path(command[0]).name} failed, see the log of the build"
        )


def sources(suffix: str) -> list[Path]:
    """Returns the source files below ``src``, or, where there is no such folder, below the package's own."""
    root = Path("src") if Path("src").is_dir() else Path()
    tests = Path("src/test")
    return sorted(path for path in root.rglob(f"*{suffix}") if not path.is_relative_to(tests))


def libraries() -> list[Path]:
    """Returns the jars besides those made here: what has been collected, and what the package brought along."""
    return [
        *sorted(LIBRARIES.glob("*.jar")),
        *sorted(Path().glob("*.jar")),
        *sorted(Path("lib").glob("*.jar")),
    ]


def write_jar(jar: Path, *folders: Path) -> None:
    """Writes the files of folders as a jar, the same bytes for the same files."""
    with zipfile.ZipFile(jar, "w") as archive:
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.writestr(zipfile.ZipInfo(str(path.relative_to(folder))), path.read_bytes())


def _path(jars: Iterable[Path]) -> str:
    return os.pathsep.join(map(str, jars))
