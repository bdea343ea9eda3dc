"""Small Debian roots, made of this machine's own mirrors: no registry of images, no network beyond what apt uses.

Packages are only unpacked (mmdebstrap's variant ``extract``): none of their scripts runs. What they would have done
and containers need is done here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import monotonic

from martlet.errors import Invalid, NotFound, Unavailable
from martlet.images.image import Contents, Image, ImageConfig
from martlet.images.inside import ALONE
from martlet.images.store import ROOT, Images
from martlet.model import MiB
from martlet.runtimes.runtime import Runtime
from martlet.sandbox.lifeline import die_with_parent

PREFIX = "debian-"
RECIPE = 1
"""Counts what is done here besides what packages do: a change makes every root anew."""
_PACKAGES = ("python3", "dash", "coreutils", "sed", "libc-bin", "libstdc++6")
"""Of every root; the last is taken for granted by what was compiled for any Linux (Python's wheels, say)."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DROPPED = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
_EMPTIED = ("dev", "tmp", "var/cache", "var/lib/apt", "var/log", "run")
_USERS = "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUPS = "root:x:0:\nnogroup:x:65534:\n"
_MERGED = Path("/usr/share/mmdebstrap/hooks/merged-usr")
_FULL = "No space left on device"
_DOOMED = (_FULL, "received signal")
_LITTLE = 16 * MiB
"""Bytes; where a disk has less the next package may not fit."""
_STUCK_SECONDS, _STUCK_AND_FULL_SECONDS = 180.0, 10.0
"""For which nothing is said or written by a build that is then taken for stuck; apt waits for a mirror for less."""
_SAY_PACKAGES = (
    'for deb in "$1"/var/cache/apt/archives/*.deb; do '
    'dpkg-deb --field "$deb"; echo "Status: install ok installed"; echo; '
    'done >"$1/var/lib/dpkg/status"'
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a root is made from: Debian's name for its release, packages, and the sources of apt by their file names."""

    suite: str
    packages: tuple[str, ...]
    sources: tuple[tuple[Path, str], ...]

    @property
    def inputs(self) -> str:
        """The digest of all that decides what becomes of it."""
        parts = [str(RECIPE), self.suite, *self.packages]
        parts += [text for _, text in self.sources]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def name_of(runtime: Runtime) -> str:
    """Returns what the root of a runtime is called."""
    return f"{PREFIX}{runtime.name}"


def recipe_of(runtime: Runtime, etc: Path = Path("/etc")) -> Recipe:
    """Returns what the root of a runtime is made from.

    Args:
        runtime: of this machine.
        etc: the folder that has the sources of apt.

    Raises:
        Invalid: no Debian package has its toolchain, or this machine has no sources of Debian packages.
    """
    sources = tuple(
        (path, path.read_text())
        for path in (etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*")))
        if path.suffix in (".list", ".sources") and path.is_file() and path.stat().st_size
    )
    suite = _release(etc / "os-release").get("VERSION_CODENAME")
    if not sources or suite is None:
        raise Invalid(
            "system.base_image: debian takes the apt sources of a Debian, which this machine has not; take host, or "
            "the name of an image",
            field="system.base_image",
        )
    return Recipe(suite, tuple(sorted({*_PACKAGES, *_packages(runtime)})), sources)


def debian_root(images: Images, runtime: Runtime, say: Say, etc: Path = Path("/etc")) -> Image:
    """Returns the root of a runtime; makes it where there is none of what it would be made from now.

    Of several that ask at once one makes it, and the others wait.

    Args:
        images: where it is kept.
        runtime: of this machine.
        say: is told how it goes, line by line.
        etc: as for `recipe_of`.

    Raises:
        Invalid: it cannot be made; the message says what to do.
        Unavailable: the disk is full, or the mirror is out of reach.
    """
    name, recipe = name_of(runtime), recipe_of(runtime, etc)
    with images.turn(name, lambda: say(f"waiting for another that builds {name}")):
        try:
            image = images.find(name)
            if image.inputs == recipe.inputs:
                return image
        except NotFound:
            pass
        with images.work() as work:
            say(f"building {name} from Debian {recipe.suite}: {', '.join(recipe.packages)}")
            root = work / ROOT
            _bootstrap(recipe, work, root, say)
            _finish(root)
            contents = Contents(
                digest=_digest(root),
                config=ImageConfig(environment={"PATH": _PATH}),
                source=f"Debian {recipe.suite}: {' '.join(recipe.packages)}",
                inputs=recipe.inputs,
            )
            say(f"built {name}")
            return images.add(name, contents, work)


def _packages(runtime: Runtime) -> Iterator[str]:
    toolchain = runtime.description.toolchain
    if toolchain is None or toolchain.programs[0] == "{interpreter}":
        return
    for program in (toolchain, *(also for also in toolchain.also if also.purpose == "runs")):
        if not program.debian:
            raise Invalid(
                f"system.base_image: no Debian package has {runtime.description.title}; take host, or the name of an "
                "image that has it",
                field="system.base_image",
            )
        yield from program.debian


def _bootstrap(recipe: Recipe, work: Path, root: Path, say: Say) -> None:
    program = shutil.which("mmdebstrap")
    if program is None or os.geteuid() != 0:
        raise Invalid(
            "system.base_image: debian takes the program mmdebstrap (apt-get install mmdebstrap) and root; take host, "
            "or the name of an image",
            field="system.base_image",
        )
    sources = []
    for number, (path, text) in enumerate(recipe.sources):
        sources.append(work / f"{number}{path.suffix}")  # as it was when the digest was made
        sources[-1].write_text(text)
    command = [
        *ALONE,
        *(program, "--mode=root", "--variant=extract", "--format=directory"),
        *([f"--hook-dir={_MERGED}"] if _MERGED.is_dir() else []),
        f"--include={','.join(recipe.packages)}",
        f"--extract-hook={_SAY_PACKAGES}",
        *(recipe.suite, str(root), *map(str, sources)),
    ]
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "TMPDIR": str(work)} | _proxies()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=partial(die_with_parent),
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        over = Event()
        Thread(target=_end_when_stuck, args=(process, work, lines, over), daemon=True).start()
        try:
            for line in process.stdout:
                lines.append(line.strip())
                if any(sign in line for sign in _DOOMED):
                    process.kill()
                if line.startswith("I: "):
                    say(line.removeprefix("I: ").strip())
        finally:
            over.set()
    if process.returncode != 0:
        _failed(work, [line for line in lines if line])


def _end_when_stuck(process: subprocess.Popen[str], work: Path, said: Sized, over: Event) -> None:
    """Ends a build of which nothing comes any more: where one process of it has failed, others wait for it for ever."""
    seen, since = (0, 0), monotonic()
    while not over.wait(1):
        free = shutil.disk_usage(work).free
        now = len(said), free
        if now != seen:
            seen, since = now, monotonic()
        elif monotonic() - since > (_STUCK_AND_FULL_SECONDS if free < _LITTLE else _STUCK_SECONDS):
            process.kill()
            return


def _failed(work: Path, lines: list[str]) -> None:
    if any(_FULL in line for line in lines) or shutil.disk_usage(work).free < _LITTLE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    faults = [line for line in lines if line.startswith(("E:", "Err:", "W: Failed"))] or lines
    raise Unavailable(
        "the root could not be built: mmdebstrap says "
        + " ".join(faults[-3:])[-600:]
        + ". Try again, or see that "
        "`apt-get update` works on this machine"
    )


def _finish(root: Path) -> None:
    """Makes of unpacked packages what containers need, and nothing else."""
    _compile(root)
    for name in _DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _EMPTIED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in (("passwd", _USERS), ("group", _GROUPS)):
        (root / "etc" / name).write_text(text)
    for name in ("hostname", "resolv.conf", "fstab"):
        (root / "etc" / name).unlink(missing_ok=True)
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    for path in _walk(root):
        mode = os.lstat(path).st_mode
        if not stat.S_ISLNK(mode):
            os.chmod(path, stat.S_IMODE(mode) & 0o777)


def _compile(root: Path) -> None:
    """Compiles the modules of the root's Python, by itself; containers cannot write what they compile."""
    folders = [f"/{path.relative_to(root)}" for path in (root / "usr/lib").glob("python3*")]
    command = [
        *ALONE,
        "--net",
        "chroot",
        str(root),
        "/usr/bin/python3",
        "-I",
        "-m",
        "compileall",
        "-qq",
        *folders,
    ]
    # A module that cannot be compiled (of tests, say) is one that is not run either.
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=partial(die_with_parent),
        check=False,
    )


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted([*folders, *files]):
            yield os.path.join(folder, name)


def _digest(root: Path) -> str:
    """Returns the digest of all files: their paths, modes and bytes."""
    whole = hashlib.sha256()
    for path in _walk(root):
        found = os.lstat(path)
        whole.update(f"{os.path.relpath(path, root)}\0{found.st_mode:o}\0".encode(errors="surrogateescape"))
        if stat.S_ISLNK(found.st_mode):
            whole.update(os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(found.st_mode):
            with open(path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def _release(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def _proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
