"""The kernel of guests: Debian's for clouds, from this machine's own apt sources, with what starts the root.

Nothing is installed: the packages are unpacked, and their scripts do not run.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from martlet.errors import Invalid, Unavailable
from martlet.microvm.store import Store
from martlet.sandbox.lifeline import die_with_parent

PACKAGE, SHELL_PACKAGE = "linux-image-cloud-amd64", "busybox-static"
_MODULES = (
    *("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console", "libcrc32c", "erofs"),
    *("failover", "net_failover", "virtio_net"),
    *("vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"),
)
"""In the order in which they need each other."""
_RECIPE = 3
"""Counts what is done here: a change makes the files of every kernel anew."""
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko; done
/bin/busybox mount -t erofs -o ro /dev/vda /root
exec /bin/busybox switch_root /root {init}
"""
INIT = "/.sandbox/init"
"""The program of the root that the kernel's first process becomes."""
_REMEDY = "see that `apt-get update` works on this machine, and try again"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Files of a kernel: itself, and the first root, which has its modules and mounts the drive."""

    version: str
    image: Path
    initrd: Path


def debian_kernel(store: Store, say: Say) -> Kernel:
    """Returns the kernel that this machine's apt would install now; downloads it where it is not kept.

    Raises:
        Invalid: this machine has no sources of Debian packages for its architecture.
        Unavailable: the mirror is out of reach, or the disk is full.
    """
    package, version = _candidate()

    def build(work: Path) -> None:
        say(f"downloading {package} {version}")
        _download(work, package)
        (image,) = (work / "unpacked/boot").glob("vmlinuz-*")
        image.rename(work / "vmlinuz")
        (work / "initrd").write_bytes(_archive(work / "unpacked"))
        for left in ("unpacked", "packages"):
            shutil.rmtree(work / left)

    folder = store.get("kernel", f"{version}-{_RECIPE}", build)
    return Kernel(version, folder / "vmlinuz", folder / "initrd")


def _candidate() -> tuple[str, str]:
    """Returns name and version of the package that the newest kernel is in."""
    if shutil.which("apt-cache") is None or os.uname().machine != "x86_64":
        raise Invalid(
            f"execution_mode: microvm takes the kernel of Debian's package {PACKAGE}, from the apt sources of a Debian "
            "on x86_64, which this machine has not; take another execution_mode",
            field="config.execution_mode",
        )
    said = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", PACKAGE],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    package = re.search(r"^Depends: (linux-image-\S+)", said, re.MULTILINE)
    version = re.search(r"^Version: (\S+)", said, re.MULTILINE)
    if package is None or version is None:
        raise Unavailable(f"apt knows no package {PACKAGE}: {_REMEDY}")
    return package[1], version[1]


def _download(work: Path, package: str) -> None:
    packages = work / "packages"
    packages.mkdir()
    got = _run(["apt-get", "download", "--quiet", package, SHELL_PACKAGE], packages)
    if got.returncode != 0:
        raise Unavailable(f"the kernel could not be downloaded: {got.stderr.strip()[-500:]}: {_REMEDY}")
    for file in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(file), str(work / "unpacked")], work).check_returncode()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=partial(die_with_parent),
        text=True,
        errors="replace",
        check=False,
    )


def _archive(unpacked: Path) -> bytes:
    """Returns the first root, as the kernel takes it: a cpio of the format ``newc``."""
    files = [("init", _INIT.format(modules=" ".join(_MODULES), init=INIT).encode())]
    files.append(("bin/busybox", (unpacked / "bin/busybox").read_bytes()))
    for module in _MODULES:
        (path,) = unpacked.rglob(f"{module}.ko")
        files.append((f"modules/{module}.ko", path.read_bytes()))
    folders = [(name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "modules", "root")]
    executables = [(name, stat.S_IFREG | 0o755, content) for name, content in files]
    end = ("TRAILER!!!", 0, b"")
    entries = enumerate([*folders, *executables, end], start=1)
    return b"".join(part for number, entry in entries for part in _entry(number, *entry))


def _entry(number: int, name: str, mode: int, content: bytes) -> Iterator[bytes]:
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    yield head + bytes(-len(head) % 4)
    yield content + bytes(-len(content) % 4)
