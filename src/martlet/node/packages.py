"""The packages of this machine, unpacked: one folder for all lanes, filled as functions need it, bounded in size.

    <digest>/files/   what functions see; read-only to them
    <digest>/record   "<bytes> <boot id>"; its folder's time says when it was last needed
    .<digest>/        work in progress: a download, a half-unpacked package, an evicted one

A lane holds a shared ``flock`` on the folder of each package it uses and an exclusive one on the folder it works in.
The kernel lets go of a lock when its process ends, however it ends, so locks are never stale, and a folder of work in
progress that nobody has locked is rubbish.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from martlet.package.packing import PREFIX
from martlet.package.staging import remove_tree
from martlet.package.unpacking import unpack
from martlet.storage.blobs import Blobs

GRACE = 120.0
"""Seconds a package stays held after it was last asked for, though nothing uses it: an instance may be starting."""
RELEASE_EVERY = 10.0
MAX_BYTES = 4 * 1024**3

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def nothing() -> frozenset[str]:
    """Says that no package is in use."""
    return frozenset()


class PackageCache:
    """See the module.

    Args:
        directory: the folder; made where there is none.
        blobs: where packages come from.
        max_bytes: what the folder may hold beyond what is in use; the least recently needed packages go first.
        in_use: returns the digests that living instances of this lane use.
    """

    def __init__(
        self,
        directory: Path,
        blobs: Blobs,
        max_bytes: int = MAX_BYTES,
        in_use: Callable[[], frozenset[str] | set[str]] = nothing,
    ) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.in_use = in_use
        self._blobs = blobs
        self._held: dict[str, _Hold] = {}
        self._arriving: dict[str, asyncio.Task[Path]] = {}
        self._released = monotonic()
        self._boot = _BOOT.read_text().strip()
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self._sweep()

    async def ensure(self, digest: str) -> Path:
        """Returns the folder with the files of a package, which stays while this lane uses it.

        Raises:
            BlobNotFound: there is no such package.
            Corrupt: what is stored is not what its name says.
        """
        self._release()
        hold = self._held.get(digest)
        if hold is not None:
            hold.asked = monotonic()
            return hold.files
        task = self._arriving.get(digest)
        if task is None:
            task = self._arriving[digest] = asyncio.create_task(self._arrive(digest))
            task.add_done_callback(lambda _: self._arriving.pop(digest, None))
        return await asyncio.shield(task)

    async def hold(self, digest: str, since: float) -> bool:
        """Holds a package for an instance that has it already, from an earlier life of this lane.

        Args:
            digest: of the package.
            since: when the instance was made, in seconds since the epoch.

        Returns:
            False where the package has been evicted since then: what the instance sees of it is gone.
        """
        hold = self._held.get(digest)
        if hold is None:
            taken = await asyncio.to_thread(self._hold, digest)
            if taken is None:
                return False
            hold = self._keep(digest, taken)
        hold.asked = monotonic()
        return (hold.files.parent / "record").stat().st_mtime <= since

    def close(self) -> None:
        """Lets go of all packages; they stay on disk."""
        for hold in self._held.values():
            os.close(hold.lock)
        self._held.clear()

    async def _arrive(self, digest: str) -> Path:
        hold = await asyncio.to_thread(self._hold, digest)
        if hold is None:
            scratch = await asyncio.to_thread(self._begin, digest)
            try:
                hold = await asyncio.to_thread(self._hold, digest)  # another lane may just have finished
                if hold is None:
                    hold = await self._fetch(digest, scratch.files)
            finally:
                await asyncio.to_thread(remove_tree, scratch.files)
                os.close(scratch.lock)
        return self._keep(digest, hold).files

    def _keep(self, digest: str, taken: _Hold) -> _Hold:
        """Notes a hold; where there is one already, that is the one."""
        hold = self._held.setdefault(digest, taken)
        if hold is not taken:
            os.close(taken.lock)
        return hold

    async def _fetch(self, digest: str, scratch: Path) -> _Hold:
        package = scratch / "package"
        await self._blobs.fetch(PREFIX, digest, package)
        await asyncio.to_thread(self._unpack, digest, package, scratch / "new")
        hold = await asyncio.to_thread(self._hold, digest)
        assert hold is not None, "nobody else works on a package whose scratch folder this lane has locked"
        await asyncio.to_thread(self._evict)
        return hold

    # -- in a thread

    def _hold(self, digest: str) -> _Hold | None:
        """Takes the shared lock of a package; returns None where it is not there."""
        folder = self.directory / digest
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_at(folder, lock) and _record(folder)[1] == self._boot:
            os.utime(folder)
            return _Hold(folder / "files", lock)
        os.close(lock)
        return None

    def _begin(self, digest: str) -> _Hold:
        """Makes the scratch folder of a package, empty, and locks it."""
        scratch = self.directory / f".{digest}"
        while True:
            # Another lane may remove it right after: pathlib's `exist_ok` would take it for a file then.
            with suppress(FileExistsError):
                os.mkdir(scratch, 0o700)
            try:
                lock = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(scratch, lock):
                for left in scratch.iterdir():
                    remove_tree(left)
                return _Hold(scratch, lock)
            os.close(lock)

    def _unpack(self, digest: str, package: Path, new: Path) -> None:
        files = new / "files"
        files.mkdir(parents=True)
        with package.open("rb") as file:
            size = unpack(file, digest, files)
        (new / "record").write_text(f"{size} {self._boot}")
        files.chmod(0o755)
        new.chmod(0o755)
        final = self.directory / digest
        if final.exists():  # from before the machine was restarted: perhaps not all of it reached the disk
            final.rename(new.parent / "old")
        new.rename(final)

    def _evict(self) -> None:
        packages = [self.directory / name for name in os.listdir(self.directory) if not name.startswith(".")]
        used = sorted((_needed(package), _record(package)[0], package) for package in packages)
        total = sum(size for _, size, _ in used)
        for _, size, package in used:
            if total <= self.max_bytes:
                return
            with _alone(package) as is_alone:
                if is_alone:
                    gone = package.with_name(f".{package.name}-gone")
                    package.rename(gone)
                    remove_tree(gone)
                    total -= size

    def _sweep(self) -> None:
        """Removes what lanes that were killed have left half done."""
        for name in os.listdir(self.directory):
            if name.startswith("."):
                with _alone(self.directory / name) as is_alone:
                    if is_alone:
                        remove_tree(self.directory / name)

    # -- on the event loop

    def _release(self) -> None:
        """Lets go of packages that nothing uses any more, so that any lane may evict them."""
        now = monotonic()
        if now - self._released < RELEASE_EVERY:
            return
        self._released = now
        in_use = self.in_use()
        for digest, hold in list(self._held.items()):
            if digest not in in_use and now - hold.asked > GRACE:
                os.close(hold.lock)
                del self._held[digest]


class _Hold:
    """A folder and the descriptor that locks it."""

    __slots__ = ("asked", "files", "lock")

    def __init__(self, files: Path, lock: int) -> None:
        self.files = files
        self.lock = lock
        self.asked = monotonic()


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Locks a folder against everybody, if it is there and nobody has a lock on it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield _is_at(folder, lock)
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


def _is_at(folder: Path, descriptor: int) -> bool:
    """Whether the folder is still the one that was opened: not removed, not replaced."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _needed(folder: Path) -> float:
    """Returns when a package was last needed; 0.0 where another lane has just evicted it."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _record(folder: Path) -> tuple[int, str]:
    try:
        size, boot = (folder / "record").read_text().split()
        return int(size), boot
    except (FileNotFoundError, ValueError):
        return 0, ""
