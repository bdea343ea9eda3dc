"""What the root of a guest is made of: a Debian root, and in it the programs that its runtime is started by.

Those are Debian's, or this machine's own where they take nothing but libraries (`Toolchain.alone`): then whatever
version this machine has runs in guests. Where nothing is left of a toolchain once a function is built, there is none.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from martlet.images.debian import Say, debian_root
from martlet.images.image import Image
from martlet.images.inside import Inside
from martlet.images.store import Images
from martlet.runtimes.runtime import Runtime
from martlet.sandbox.lifeline import die_with_parent

_PLAIN = "plain"
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Base:
    """See the module.

    Attributes:
        image: the Debian root.
        runtime: the runtime, with the paths that its programs have in there.
        programs: files of this machine that it has besides, at their own paths.
    """

    image: Image
    runtime: Runtime
    programs: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """That of all files."""
        whole = hashlib.sha256(self.image.digest.encode())
        for path in self.programs:
            with path.open("rb") as file:
                whole.update(f"\0{path}\0{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
        return whole.hexdigest()


def base_of(images: Images, runtime: Runtime, say: Say) -> Base:
    """Returns what the root of a guest is made of; has the Debian root made where there is none.

    Args:
        images: where Debian roots are kept.
        runtime: of this machine.
        say: is told how it goes where one is made, line by line.

    Raises:
        Invalid: it cannot be made; the message says what to do.
        Unavailable: the disk is full, or the mirror of packages is out of reach.
    """
    description, toolchain = runtime.description, runtime.description.toolchain
    if toolchain is not None and toolchain.programs[0] == "{interpreter}":
        image = debian_root(images, _plain(runtime), say)
        return Base(image, Inside(image.root).fitted(runtime), ())
    if toolchain is not None and description.runs_by_toolchain and not toolchain.alone:
        image = debian_root(images, runtime, say)
        return Base(image, Inside(image.root).fitted(runtime), ())
    image = debian_root(images, _plain(runtime), say)
    fitted = Inside(image.root).fitted(_plain(runtime))
    fitted = fitted.model_copy(update={"name": runtime.name, "description": description})
    programs: tuple[Path, ...] = ()
    if toolchain is not None and description.runs_by_toolchain and runtime.program is not None:
        programs = (runtime.program, *_libraries(runtime.program))
    return Base(image, fitted, programs)


def _plain(runtime: Runtime) -> Runtime:
    """Returns a runtime as it is without its toolchain; the roots of all such are one."""
    description = runtime.description.model_copy(update={"toolchain": None})
    return runtime.model_copy(update={"name": _PLAIN, "description": description})


def _libraries(program: Path) -> tuple[Path, ...]:
    """Returns the libraries that a program of this machine loads; none where it loads none."""
    said = subprocess.run(
        ["ldd", str(program)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=partial(die_with_parent),
        text=True,
        check=False,
    ).stdout
    found = (Path(path) for path in _LIBRARY.findall(said))
    return tuple(Path(os.path.realpath(path.parent), path.name) for path in found)
