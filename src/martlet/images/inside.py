"""What a root has for a runtime: its Python, and the programs of its toolchain."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

from martlet.images.refusal import unusable
from martlet.runtimes.description import PLACEHOLDER, PROGRAM, Program
from martlet.runtimes.runtime import Runtime
from martlet.sandbox.lifeline import die_with_parent

ALONE = ("unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc")
"""Runs a command whose processes and mounts all end with it."""
LONGEST_TEXT = 64 * 1024 * 1024
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_INTERPRETERS = ("python3", "python3.[0-9]*")
_LEAST = (3, 11)
_ASK_SECONDS = 20.0
_ASK = 'mount --rbind /dev "$0/dev" && exec chroot --userspec=65534:65534 "$0" "$@"'
_MOST_HOPS = 40
_DOTTED, _NUMBER = re.compile(r"\d+(?:\.\d+)+"), re.compile(r"\d+")


class Inside:
    """Looks into a root as a process in it would see it. The root is one that nobody changes meanwhile."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def fitted(self, runtime: Runtime) -> Runtime:
        """Returns a runtime with the paths that its programs have in the root.

        Raises:
            Invalid: the root lacks one, or has it in another version.
        """
        interpreter = self._interpreter()
        toolchain = runtime.description.toolchain
        if toolchain is None:
            return runtime.model_copy(update={"interpreter": interpreter, "shown": ()})
        program = self._program(toolchain, interpreter, runtime)
        filled = {PROGRAM: str(program), "interpreter": str(interpreter)}
        asked = [PLACEHOLDER.sub(lambda found: filled[found[1]], word) for word in toolchain.version]
        version = self._version(asked)
        parts = runtime.description.version_parts
        name = runtime.description.name + ".".join(version.split(".")[:parts])
        if name != runtime.name:
            raise unusable(
                f"it has {runtime.description.title} {version}, and the function asks for {runtime.name}: deploy it "
                f"with that version, or take another base_image"
            )
        needed = [also for also in toolchain.also if also.purpose == "runs"]
        programs = {also.key: self._program(also, interpreter, runtime) for also in needed}
        return runtime.model_copy(
            update={
                "interpreter": interpreter,
                "program": program,
                "programs": programs,
                "version": version,
                "shown": (),
            }
        )

    def text(self, path: str) -> str | None:
        """Returns the text of a file, at most `LONGEST_TEXT` bytes of it; None where there is none."""
        real = self._follow(path)
        if real is None or not self._at(real).is_file():
            return None
        with self._at(real).open("rb") as file:
            return file.read(LONGEST_TEXT).decode(errors="replace")

    def names(self, folder: str) -> list[str]:
        """Returns the names in a folder, sorted; none where there is no such folder."""
        real = self._follow(folder)
        try:
            return [] if real is None else sorted(os.listdir(self._at(real)))
        except OSError:
            return []

    def _interpreter(self) -> Path:
        for path in self._found(_INTERPRETERS):
            version = re.fullmatch(r"python(\d+)\.(\d+)", path.name)
            if version is not None and (int(version[1]), int(version[2])) >= _LEAST:
                return path
        raise unusable("it has no Python 3.11 or later, which every container is started with")

    def _program(self, wanted: Program, interpreter: Path, runtime: Runtime) -> Path:
        if wanted.programs[0] == "{interpreter}":
            return interpreter
        found = next(self._found(wanted.programs), None)
        if found is None:
            names = " or ".join(wanted.programs)
            raise unusable(f"it has no {names}, which {runtime.description.title} takes")
        return found

    def _found(self, patterns: Sequence[str]) -> Iterator[Path]:
        """Yields the programs that a pattern names, with links resolved, the preferred first."""
        for pattern in patterns:
            if pattern.startswith("/"):
                yield from self._resolved(f"/{path.relative_to(self._root)}" for path in self._glob(pattern))
            elif "/" not in pattern:
                names = ((folder, self.names(folder)) for folder in _FOLDERS)
                yield from self._resolved(
                    f"{folder}/{name}"
                    for folder, known in names
                    for name in known
                    if fnmatchcase(name, pattern)
                )

    def _glob(self, pattern: str) -> list[Path]:
        return sorted(self._root.glob(pattern.lstrip("/")))

    def _resolved(self, paths: Iterable[str]) -> Iterator[Path]:
        for path in paths:
            real = self._follow(path)
            if real is not None and self._at(real).is_file() and os.stat(self._at(real)).st_mode & 0o111:
                yield Path(real)

    def _at(self, path: PurePosixPath) -> Path:
        return self._root / str(path).lstrip("/")

    def _follow(self, path: str) -> PurePosixPath | None:
        """Returns where a path leads inside; None: nowhere."""
        place = PurePosixPath("/")
        steps, hops = path.split("/")[::-1], 0
        while steps:
            step = steps.pop()
            if step in ("", "."):
                continue
            if step == "..":
                place = place.parent
                continue
            here = self._at(place / step)
            if here.is_symlink():
                hops += 1
                if hops > _MOST_HOPS:
                    return None
                target = os.readlink(here)
                place = PurePosixPath("/") if target.startswith("/") else place
                steps += target.split("/")[::-1]
            elif here.exists():
                place /= step
            else:
                return None
        return place

    def _version(self, command: Sequence[str]) -> str:
        """Returns the version that a program of the root prints, run as nobody and without a network."""
        try:
            answer = subprocess.run(
                [*ALONE, "--net", "sh", "-c", _ASK, self._root, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": ":".join(_FOLDERS), "HOME": "/nonexistent", "LANG": "C.UTF-8"},
                preexec_fn=partial(die_with_parent),
                timeout=_ASK_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise unusable(f"its {command[0]} does not say its version") from None
        output = answer.stdout.decode(errors="replace")
        found = _DOTTED.search(output) or _NUMBER.search(output)
        if answer.returncode != 0 or found is None:
            raise unusable(f"its {command[0]} does not say its version ({output.strip()[-200:]})")
        return found[0]
