"""The images of this machine: one folder for all lanes and control.

    <digest>/root/         what a container has as its root
    <digest>/record.json   what is known of it
    <digest>/users/        a file for each user, which holds a ``flock`` on it
    names/<name>           the digest that the name stands for
    .work-*/               work in progress, under a ``flock`` of whoever works there
    .gone-*/               what is being removed
    .build-<name>          held by whoever makes the image of that name
    .lock                  held while names and folders change

An image appears by one rename and gets its name by another, after its files have reached the disk; whoever is killed
before leaves work that nobody has locked, which the next one removes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from urllib.parse import quote, unquote

from martlet.errors import Conflict, NotFound, Unavailable
from martlet.images.image import Contents, Image, Record
from martlet.model import IMAGE_REFERENCE, Digest
from martlet.package.staging import remove_tree

ROOT = "root"
_RECORD = "record.json"
_USERS = "users"
_NAMES = "names"
_LOCK = ".lock"
_WORK, _GONE, _TURN = ".work-", ".gone-", ".build-"
_FULL = (errno.ENOSPC, errno.EDQUOT)

_REFERENCE = re.compile(IMAGE_REFERENCE)
_libc = ctypes.CDLL(None, use_errno=True)


class Images:
    """See the module. All methods may wait for the disk.

    Args:
        folder: where they are kept; made where there is none, also when somebody has deleted it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sweep()

    def list(self) -> list[Image]:
        """Returns the images that have a name, by name."""
        names = sorted(name for name in os.listdir(self._names()) if not name.startswith("."))
        return [image for name in names if (image := self._named(name)) is not None]

    def find(self, reference: str) -> Image:
        """Returns an image by its name, or by ``name@digest``.

        Raises:
            NotFound: there is none; the message says how to import it.
        """
        name, _, digest = reference.partition("@")
        image = None
        if _REFERENCE.fullmatch(reference):
            image = self._read(digest, name) if digest else self._named(name)
        if image is None:
            which = f"{name!r} of the digest {digest[:12]}" if digest else repr(name)
            raise NotFound(
                f"there is no image {which}: import it with `martlet images import {name} FILE`; "
                "`martlet images list` shows those there are"
            )
        return image

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Gives an empty folder to make an image in, below the name `ROOT`; what is left there is removed at the end.

        Raises:
            Unavailable: the disk is full.
        """
        folder = self.folder / f"{_WORK}{secrets.token_hex(8)}"
        self._sweep()
        with said_when_full(self.folder):
            with self._lock():  # whoever sweeps does not see it without its lock
                folder.mkdir(mode=0o700)
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield folder
            finally:
                remove_tree(folder)
                os.close(lock)

    def add(self, name: str, contents: Contents, work: Path) -> Image:
        """Keeps what lies in `ROOT` of a folder that `work` gave, under a name, which may have been another's before.

        What it stood for before stays for those who use it by its digest, until `prune` is told that nobody does.
        """
        record = Record(**contents.model_dump(), size=_size(work / ROOT), created=time())
        (work / _RECORD).write_text(record.model_dump_json())
        (work / _USERS).mkdir()
        _reach_disk(work)
        new = work / "new"
        new.mkdir()
        for part in (ROOT, _RECORD, _USERS):
            (work / part).rename(new / part)
        with self._lock():
            if self._read(record.digest, name) is None:
                if (self.folder / record.digest).exists():  # somebody has deleted a part of it by hand
                    self._set_aside(record.digest)
                new.rename(self.folder / record.digest)
            self._name(name, record.digest)
            return self.find(name)

    def remove(self, name: str, users: Callable[[Image], Iterable[str]] = lambda _: ()) -> None:
        """Removes an image with all its names.

        Args:
            name: one of its names.
            users: returns who needs it, besides those who `hold` it.

        Raises:
            NotFound: there is none.
            Conflict: somebody uses it; the message says who.
        """
        with self._lock():
            image = self.find(name)
            using = [*users(image), *self._holders(image.digest)]
            if using:
                raise Conflict(
                    f"the image {name!r} is in use, by {', '.join(using)}; remove it when they are done with it"
                )
            for each in self.list():
                if each.digest == image.digest:
                    (self.folder / _NAMES / each.name).unlink()
            gone = self._set_aside(image.digest)
        remove_tree(gone)

    def prune(self, needed: Iterable[Digest]) -> None:
        """Removes the images that have no name any more and that nobody needs or holds."""
        with self._lock():
            kept = {*needed, *(image.digest for image in self.list())}
            unneeded = [each for each in self._digests() if each not in kept and not self._holders(each)]
            gone = [self._set_aside(digest) for digest in unneeded]
        for folder in gone:
            remove_tree(folder)

    def hold(self, image: Image, user: str) -> Hold:
        """Keeps an image from being removed until what is returned is closed, or this process ends.

        Args:
            image: as `find` returned it.
            user: what people call the one who uses it.

        Raises:
            NotFound: it has been removed meanwhile.
        """
        with self._lock():
            if self._read(image.digest, image.name) is None:
                raise NotFound(f"the image {image.name!r} has just been removed")
            file = self.folder / image.digest / _USERS / quote(user, safe="@")
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        return Hold(descriptor)

    @contextmanager
    def turn(self, name: str, wait: Callable[[], None]) -> Iterator[None]:
        """Lets one at a time make the image of a name.

        Args:
            name: of the image.
            wait: is told where somebody else makes it now.
        """
        self._names()
        lock = os.open(self.folder / f"{_TURN}{name}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                wait()
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    # -- names

    def _names(self) -> Path:
        """Returns the folder of names, which is made where there is none."""
        folder = self.folder / _NAMES
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _named(self, name: str) -> Image | None:
        try:
            return self._read((self.folder / _NAMES / name).read_text(), name)
        except FileNotFoundError:
            return None

    def _name(self, name: str, digest: str) -> None:
        new = self._names() / f".{secrets.token_hex(8)}"
        with new.open("w") as file:
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.folder / _NAMES / name)
        _reach_disk(self.folder)

    # -- folders

    def _read(self, digest: str, name: str) -> Image | None:
        folder = self.folder / digest
        try:
            record = Record.model_validate_json((folder / _RECORD).read_bytes())
        except FileNotFoundError:
            return None
        if not (folder / ROOT).is_dir():
            return None
        return Image(**record.model_dump(), name=name, root=folder / ROOT)

    def _digests(self) -> Iterator[str]:
        return (each for each in os.listdir(self.folder) if each != _NAMES and not each.startswith("."))

    def _holders(self, digest: str) -> tuple[str, ...]:
        """Returns who holds an image, and forgets who did."""
        holders = []
        for file in sorted((self.folder / digest / _USERS).iterdir()):
            with file.open("rb") as user:
                try:
                    fcntl.flock(user, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    file.unlink()
                except BlockingIOError:
                    holders.append(unquote(file.name))
        return tuple(holders)

    def _set_aside(self, digest: str) -> Path:
        gone = self.folder / f"{_GONE}{secrets.token_hex(8)}"
        (self.folder / digest).rename(gone)
        return gone

    def _sweep(self) -> None:
        """Removes what those who were killed have left."""
        with self._lock():
            for work in self.folder.glob(f"{_WORK}*"):
                if _is_abandoned(work):
                    work.rename(self.folder / f"{_GONE}{secrets.token_hex(8)}")
            for left in (self.folder / _NAMES).glob(".*"):
                left.unlink()
        for gone in self.folder.glob(f"{_GONE}*"):
            remove_tree(gone)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._names()
        lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@contextmanager
def said_when_full(folder: Path) -> Iterator[None]:
    """Makes a disk that is full, where an image is written into a folder, an error for people: `Unavailable`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Unavailable(
            f"the disk is full: there is no room for the image in {folder}. Remove images that nobody needs "
            "(`martlet images remove`), or make room there; then try again"
        ) from None


class Hold:
    """Keeps an image from being removed.

    Attributes:
        descriptor: whoever has inherited it holds the image too.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.descriptor)


def _is_abandoned(work: Path) -> bool:
    """Whether nobody works in a folder any more."""
    try:
        lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:  # its owner has just removed it
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _size(root: Path) -> int:
    seen: set[tuple[int, int]] = set()
    size = 0
    for folder, _, files in os.walk(root):
        for name in files:
            found = os.lstat(os.path.join(folder, name))
            if (found.st_dev, found.st_ino) not in seen:
                size += found.st_size
                if found.st_nlink > 1:
                    seen.add((found.st_dev, found.st_ino))
    return size


def _reach_disk(folder: Path) -> None:
    """Waits until all of the file system that a folder is on has reached the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
