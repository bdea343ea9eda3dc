"""Programs as a user without any right, on a stage of their own, made by root in a mount namespace that goes with them.

``python -m tests.unprivileged STAGE PROGRAM…`` sets the stage and becomes the program.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from martlet.sandbox import syscalls
from martlet.sandbox.cgroups import Group
from martlet.sandbox.hierarchies import find_top
from martlet.sandbox.syscalls import Clone, Mount
from martlet.sandbox.users import Extent, IdMap, enter
from tests.conftest import UNPRIVILEGED, require

USER = 65534
REPOSITORY = Path(__file__).parents[1]
_ALL_IDS = Extent(0, 0, 2**32 - 1)


@dataclass(frozen=True, slots=True)
class Stage:
    """What the user finds.

    Attributes:
        folder: its own, open to everybody; for data and temporary files.
        lent: whether ids are lent to it.
        group: name of a cgroup that belongs to it, or None.
        user_namespaces: whether it may make them.
        hidden_proc: whether a part of ``/proc`` is covered, as container engines do.
        root: whether the user is root after all, without CAP_SYS_ADMIN.
    """

    folder: str
    lent: bool = True
    group: str | None = None
    user_namespaces: bool = True
    hidden_proc: bool = False
    root: bool = False

    def command(self, *program: str | Path) -> list[str]:
        """Returns the command line that runs a program on this stage."""
        return [
            sys.executable,
            "-m",
            "tests.unprivileged",
            json.dumps(asdict(self)),
            *map(str, program),
        ]

    def environment(self) -> dict[str, str]:
        """Returns what the program and the making of its stage need of the environment."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": self.folder,
            UNPRIVILEGED: "strict" if self.lent else "relaxed",
            "TMPDIR": self.folder,
            "XDG_RUNTIME_DIR": self.folder,
        }


@contextlib.contextmanager
def stage(*, limits: bool = True, **options: bool) -> Iterator[Stage]:
    """Lends a stage; skips the test where it cannot be set. ``limits``: with a cgroup of its own."""
    require(os.geteuid() == 0, "root, to become a user without rights")
    require(shutil.which("newuidmap") and Path("/etc/subuid").exists(), "newuidmap (Debian: uidmap)")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    name = f"martlet-test-{os.getpid()}-{folder.name}"
    group = _host_group(name) if limits else None
    if group is not None:
        group.create()
    try:
        folder.chmod(0o755)
        os.chown(folder, USER, USER)
        yield Stage(str(folder), group=name if limits else None, **options)
    finally:
        shutil.rmtree(folder)
        if group is not None:
            assert group.remove(), f"something is left in {group}"


def _host_group(name: str) -> Group:
    top = find_top(Path("/proc/self/mountinfo").read_text())
    require(top is not None and top.writable(), "a writable cgroup hierarchy with memory, pids and cpu")
    assert top is not None
    return top.below(name)


def main(description: str, *program: str) -> None:
    """Sets the stage and becomes the program."""
    stage = Stage(**json.loads(description))
    syscalls.unshare(Clone.MOUNT)
    syscalls.make_private()
    _open_ways([Path(sys.base_prefix), Path(sys.prefix), REPOSITORY])
    _lend(Path(stage.folder), stage.lent)
    if stage.group is not None:
        _delegate(_host_group(stage.group))
    if stage.hidden_proc:
        syscalls.bind("/dev/null", "/proc/interrupts")
    if not stage.user_namespaces:
        enter(IdMap((_ALL_IDS,), (_ALL_IDS,)))
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    if stage.root:
        os.execvp("setpriv", ["setpriv", "--bounding-set", "-sys_admin", *program])
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.execvp(program[0], program)


def _open_ways(places: list[Path]) -> None:
    """Lets everybody walk to these places: what hides them is covered by a folder with nothing else in it."""
    descriptors = {place: os.open(place, os.O_PATH | os.O_CLOEXEC) for place in places}
    for closed in {above for place in places for above in place.parents if not above.stat().st_mode & 1}:
        if not closed.stat().st_mode & 1:  # it may lie in another one that is covered by now
            syscalls.mount("tmpfs", str(closed), Mount.NO_SUID, "mode=755")
    for place, descriptor in descriptors.items():
        if not place.exists():
            place.mkdir(parents=True)
            syscalls.bind(f"/proc/self/fd/{descriptor}", str(place))


def _lend(folder: Path, lent: bool) -> None:
    for name in ("subuid", "subgid"):
        (folder / name).write_text(f"{USER}:2050000000:1048576\n" if lent else "")
        syscalls.bind(str(folder / name), f"/etc/{name}")


def _delegate(group: Group) -> None:
    for door in group.open_doors():
        folder = Path(os.readlink(f"/proc/self/fd/{door}")).parent
        for given in (folder, *folder.glob("cgroup.procs"), *folder.glob("cgroup.subtree_control")):
            os.chown(given, USER, USER)
        os.write(door, b"0")
        os.close(door)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:])
