"""The private root of a zygote and its cells: system, code and scratch space, and nothing else of the host.

- ``/usr /bin /sbin /lib…``: the host's, read-only, as are the folders of interpreter and toolchain at their own paths.
- ``/.runtime /.runtimes``: the folder of the runtime and of all that come with Martlet, for runtimes that are programs.
- ``/etc``: made here, of names, resolver, certificates and time zone.
- ``/dev``: null, zero, full, random, urandom, and the links fd, std* and shm (to ``/tmp``).
- ``/.packages``: all unpacked packages, read-only; a cell loses sight of them before it gets code.
- ``/function /dependencies``: the cell's code, read-only.
- ``/proc``: the host's, which each cell covers with its own.
- ``/tmp``: the cell's own.

The root of a build has no packages; it has folders of its own that it may write to instead, and its user has a name.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePath

from martlet.sandbox import syscalls
from martlet.sandbox.script import Calls, Script, Text
from martlet.sandbox.syscalls import Mount, MountAttribute

PACKAGES = "/.packages"
_EMPTY = "/.empty"
_BEHIND = "/.behind"
FUNCTION = "/function"
DEPENDENCIES = "/dependencies"
SCRATCH = "/tmp"  # noqa: S108  (the cell's own, inside its root)

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
DEVICES = ("null", "zero", "full", "random", "urandom")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "shm": SCRATCH,
}
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"
_ETC = {
    "passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
    "hosts": HOSTS,
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_ETC_COPIED = (
    "gai.conf",
    "host.conf",
    "ld.so.cache",
    "localtime",
    "mime.types",
    "protocols",
    "services",
    "ssl/openssl.cnf",
    "timezone",
)
_RESOLVERS, _RESOLVERS_OF_HOST = "resolv.conf", "resolv.conf.host"
ETC_BOUND = ("alternatives", "ssl/certs", "pki/ca-trust", "pki/tls/certs")
"""Folders in ``/etc`` that are the host's."""
_BYTES_PER_INODE = 4096
_TMPFS_FLAGS = Mount.NO_SUID | Mount.NO_DEV
_RESIZE_FLAGS = Mount.REMOUNT | _TMPFS_FLAGS
_PROC_FLAGS = Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC


def build(
    at: Path,
    prefix: Path,
    packages: Path,
    resolvers: str,
    shown: Mapping[str, str] | None = None,
    devices: Mapping[str, int] | None = None,
) -> None:
    """Makes the root of cells at ``at`` and moves into it. The process must have a mount namespace of its own.

    Args:
        at: an empty directory to build it on; nothing is left there.
        prefix: the folder of the interpreter, with its standard library.
        packages: the folder of all unpacked packages.
        resolvers: the text of ``resolv.conf``, for those who do not share the network of the host.
        shown: further folders of the host, by where they are seen; `show_in_scratch` is for those in `SCRATCH`.
        devices: further devices of the host, by their names in ``/dev``, and the modes that they have here.
    """
    _begin(at, prefix, resolvers)
    if devices:
        _lend_devices(at, devices)
    for path, folder in (shown or {}).items():
        target = _inside(at, f"{_BEHIND}{path}" if path.startswith(SCRATCH) else path)
        if not target.exists():
            _bind(Path(folder), target)
    _bind(packages, _inside(at, PACKAGES))
    for empty in (_EMPTY, FUNCTION, DEPENDENCIES):
        _inside(at, empty).mkdir()
    _close(at)
    _move_into(at)


def build_for_builds(
    at: Path,
    prefix: Path,
    resolvers: str,
    *,
    shown: Collection[Path],
    named: Mapping[str, Path],
    own: Mapping[str, Path],
    scratch: int,
    user: str,
) -> None:
    """Makes the root of a build at ``at``, likewise.

    Args:
        at: as for `build`.
        prefix: as for `build`.
        resolvers: as for `build`.
        shown: files and folders of the host that are there, read-only, at their own path.
        named: folders of the host that are there, read-only, at the path that is the key.
        own: folders of the host that may be written to, likewise.
        scratch: bytes that the scratch space may hold.
        user: the line of ``/etc/passwd`` of whoever the build becomes.
    """
    _begin(at, prefix, resolvers)
    in_scratch = [place for place in shown if place.is_relative_to(SCRATCH)]
    _show(at, [place for place in shown if place not in in_scratch])
    for path, folder in named.items():
        _bind(folder, _inside(at, path))
    with (at / "etc/passwd").open("a") as users:
        users.write(f"{user}\n")
    for path in own:
        _inside(at, path).mkdir(parents=True, exist_ok=True)
    _close(at)
    mount_scratch(scratch, at)
    _show(at, in_scratch)
    for path, folder in own.items():
        target = str(_inside(at, path))
        syscalls.bind(str(folder), target)
        syscalls.mount_setattr(target, MountAttribute.NO_SUID | MountAttribute.NO_DEV)
    _move_into(at)


def show_resolvers_of_host(calls: Calls = syscalls) -> None:
    """Shows the ``resolv.conf`` of the host: its resolvers may be on its loopback."""
    calls.bind(f"/etc/{_RESOLVERS_OF_HOST}", f"/etc/{_RESOLVERS}")


def mount_proc(calls: Calls = syscalls) -> None:
    """Mounts ``/proc`` of the process's own PID namespace, above that of the host."""
    # Covered for good, since nothing here may unmount any more. To unmount would wait for every core.
    calls.mount("proc", "/proc", _PROC_FLAGS)


def mount_scratch(size: int, at: Path | str = "", calls: Calls = syscalls) -> None:
    """Mounts an empty scratch space of at most ``size`` bytes, in the root that is being built ``at`` some place."""
    mount_space(f"{at}{SCRATCH}", size, calls)


def show_in_scratch(script: Script, paths: Iterable[str]) -> None:
    """Writes down how to show what `build` was given to show below the scratch space, which has covered it."""
    shown = [path for path in paths if path.startswith(SCRATCH)]
    for folder in sorted({str(each) for path in shown for each in _below_scratch(path)}):
        script.make_folder(folder)
    for path in shown:
        script.bind(f"{_BEHIND}{path}", path)


def _below_scratch(path: str) -> list[PurePath]:
    """Returns a path and the folders that it is in."""
    place = PurePath(path)
    return [each for each in (place, *place.parents) if PurePath(SCRATCH) in each.parents]


def resize_scratch(size: int) -> None:
    """Changes what the scratch space may hold to ``size`` bytes."""
    resize_space(SCRATCH, size)


def resize_scratch_by(script: Script, bounds: Text) -> None:
    """Writes down the same, with `bounds` that are filled in later."""
    script.mount("tmpfs", SCRATCH, _RESIZE_FLAGS, bounds)


def mount_code(script: Script, code: Text, dependencies: Text | None) -> None:
    """Writes down how to show packages at `FUNCTION` and `DEPENDENCIES`, and to cover all others.

    A bind mount has the attributes of what it shows: read-only, without devices and setuid files.

    Args:
        script: where.
        code: the path of the package with the code, below `PACKAGES`.
        dependencies: that of the one with the dependencies, if there is one.
    """
    script.bind(code, FUNCTION)
    if dependencies is not None:
        script.bind(dependencies, DEPENDENCIES)
    # For good, as `mount_proc`.
    script.bind(_EMPTY, PACKAGES)


def bounds(size: int) -> str:
    """Returns the options of a mount of memory that holds at most ``size`` bytes."""
    return f"size={size},nr_inodes={size // _BYTES_PER_INODE}"


def mount_space(at: str, size: int, calls: Calls = syscalls) -> None:
    """Mounts an empty space of at most ``size`` bytes, which everybody may write to, ``at`` a path."""
    calls.mount("tmpfs", at, _TMPFS_FLAGS, f"mode=1777,{bounds(size)}")


def resize_space(at: str, size: int) -> None:
    """Changes what such a space may hold to ``size`` bytes."""
    syscalls.mount("tmpfs", at, _RESIZE_FLAGS, bounds(size))


def _begin(at: Path, prefix: Path, resolvers: str) -> None:
    """Mounts the top, with what every root has in it."""
    syscalls.make_private()
    syscalls.mount("tmpfs", str(at), _TMPFS_FLAGS, "size=8m,mode=755")
    _bind_system(at)
    if not _inside(at, prefix).exists():
        _bind(prefix, _inside(at, prefix))
    _bind_proc(at / "proc")
    _make_etc(at / "etc", resolvers)
    (at / "dev").mkdir()
    fill_dev(at / "dev")
    _inside(at, SCRATCH).mkdir()


def _show(at: Path, places: Iterable[Path]) -> None:
    for place in places:
        if not _inside(at, place).exists():
            _bind(place, _inside(at, place))


def _close(at: Path) -> None:
    """Lets nobody write to what is there so far."""
    syscalls.mount_setattr(str(at), MountAttribute.READ_ONLY | MountAttribute.NO_SUID)


def _inside(at: Path, path: str | Path) -> Path:
    return at / Path(path).relative_to("/")


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        _parent(target).touch()
    syscalls.bind(str(source), str(target))
    attributes = MountAttribute.READ_ONLY | MountAttribute.NO_SUID | MountAttribute.NO_DEV
    syscalls.mount_setattr(str(target), attributes)


def _bind_proc(target: Path) -> None:
    # In a user namespace the kernel mounts a new one only where one is to be seen in full already.
    target.mkdir()
    syscalls.bind("/proc", str(target))


def _bind_system(at: Path) -> None:
    for path in map(Path, SYSTEM):
        target = at / path.name
        if path.is_symlink():
            target.symlink_to(path.readlink())
        elif path.is_dir():
            _bind(path, target)


def _make_etc(etc: Path, resolvers: str) -> None:
    write_etc(etc, resolvers)
    for name in ETC_BOUND:
        if Path("/etc", name).is_dir():
            _bind(Path("/etc", name), etc / name)


def write_etc(etc: Path, resolvers: str) -> None:
    """Writes the files of ``/etc``; ``resolvers`` is the text of ``resolv.conf``."""
    for name, text in (_ETC | {_RESOLVERS: resolvers}).items():
        _parent(etc / name).write_text(text)
    if Path("/etc", _RESOLVERS).is_file():
        shutil.copyfile(Path("/etc", _RESOLVERS), etc / _RESOLVERS_OF_HOST)
    else:
        (etc / _RESOLVERS_OF_HOST).touch()
    for name in _ETC_COPIED:
        if Path("/etc", name).is_file():
            shutil.copyfile(Path("/etc", name), _parent(etc / name))


def fill_dev(dev: Path) -> None:
    """Puts the devices that everybody may have into a ``/dev``. Raises OSError."""
    for name in DEVICES:
        (dev / name).touch()
        syscalls.bind(f"/dev/{name}", str(dev / name))
        syscalls.mount_setattr(str(dev / name), MountAttribute.NO_SUID | MountAttribute.NO_EXEC)
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)


def _lend_devices(at: Path, devices: Mapping[str, int]) -> None:
    """Makes devices anew, because their own files are not open to the users of cells."""
    maker = at / ".devices"
    maker.mkdir()
    syscalls.mount("tmpfs", str(maker), Mount.NO_SUID | Mount.NO_EXEC, "size=64k,mode=700")
    for number, (name, mode) in enumerate(devices.items()):
        node, target = maker / str(number), at / "dev" / name
        os.mknod(node, stat.S_IFCHR | mode, os.stat(f"/dev/{name}").st_rdev)
        node.chmod(mode)
        _parent(target).touch()
        syscalls.bind(str(node), str(target))
    syscalls.unmount(str(maker))
    maker.rmdir()


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _move_into(at: Path) -> None:
    os.chdir(at)
    # The old root lands on top of the new one and is taken away from there: it needs no directory.
    syscalls.pivot_root(".", ".")
    syscalls.unmount(".")
    os.chdir("/")
