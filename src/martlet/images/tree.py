"""A root that is made of layers, as the OCI image specification describes them ("Image Layer Filesystem Changeset").

What a layer names is looked for as a process inside would: links of lower layers are followed with this root as ``/``,
so nothing is ever written or removed outside of it. Devices and FIFOs are left out, since a container has its own
``/dev``, and no file makes whoever runs it somebody else.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from martlet.errors import Invalid
from martlet.images.refusal import MOST_FILES, too_large, unusable
from martlet.package.rules import reason_of, shown
from martlet.package.staging import CHUNK, Readable
from martlet.package.tar import Kind, Member, members

_WHITEOUT, _OPAQUE, _INTERNAL = ".wh.", ".wh..wh..opq", ".wh..wh."
_DEEPEST, _LONGEST = 200, 3000
_MOST_HOPS = 40
_LAST_TIME = 1 << 33
_FAULTS_OF_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ELOOP)


class Tree:
    """See the module.

    Args:
        root: where it is made; a folder that is not there yet.
        limit: bytes that its files may have.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self._limit = self._left = limit
        self._entries = 0
        self._folders: dict[str, Path] = {}
        self._added: set[str] = set()
        self._private: dict[str, tuple[int, int, int]] = {}
        root.mkdir(mode=0o755)
        root.chmod(0o755)

    def apply(self, layer: Readable) -> None:
        """Changes the root as a layer, an uncompressed tar, says.

        Raises:
            Invalid: it is damaged, over the limits, or leads outside. The root then is to be thrown away.
        """
        self._added.clear()
        try:
            for member in members(layer, special=True):
                self._take(member)
        except OSError as error:
            if error.errno not in _FAULTS_OF_NAMES:
                raise
            raise unusable(f"it has a file that cannot be made here ({error.strerror})") from None
        except Invalid as error:
            raise unusable(reason_of(error)) if error.field == "code" else error from None

    def open_to(self, user: str) -> None:
        """Lets everybody read and run what the image's user may: it is run as one that the image does not know.

        Raises:
            Invalid: the image names a user that it does not have.
        """
        uid, gids = self._ids(user)
        for path, (owner, group, mode) in self._private.items():
            bits = (mode >> 6 if owner == uid else mode >> 3 if group in gids else mode) & 0o5
            with suppress(FileNotFoundError):
                found = os.lstat(path).st_mode
                if not stat.S_ISLNK(found):
                    os.chmod(path, stat.S_IMODE(found) | bits)

    def read(self, path: str) -> str:
        """Returns the text of a file in the root, as a process inside would see it; empty where it is none."""
        *above, name = _parts(path)
        folder = self._walk(above, make=False)
        try:
            descriptor = os.open(str(folder and folder / name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        with open(descriptor, "rb") as file:
            return file.read(CHUNK).decode(errors="replace")

    # -- entries

    def _take(self, member: Member) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        *above, name = parts
        if name.startswith(_WHITEOUT):
            self._white_out(above, name)
            return
        self._count()
        folder = self._walk(above, make=True)
        assert folder is not None
        path = str(folder / name)
        self._make_room(path, member.kind)
        self._private.pop(path, None)
        if member.kind is Kind.SPECIAL:
            return
        self._make(path, member)
        self._added.add(path)

    def _make(self, path: str, member: Member) -> None:
        if member.kind is Kind.LINK:
            if not member.target or "\0" in member.target or len(member.target) > _LONGEST:
                raise unusable(f"the link {shown(member.name)} leads to {shown(member.target)}")
            os.symlink(member.target, path)
            _give(path, member)
            return
        if member.kind is Kind.COPY:
            os.link(self._linked(member), path, follow_symlinks=False)
            return
        mode = stat.S_IMODE(member.mode) & 0o777
        if member.kind is Kind.FOLDER:
            with suppress(FileExistsError):
                os.mkdir(path)
            mode |= 0o700  # or whoever is not root could not remove it
        else:
            self._write(path, member)
        _give(path, member)
        os.chmod(path, mode)
        if member.kind is Kind.FILE:
            time = min(member.modified, _LAST_TIME)
            os.utime(path, (time, time))
        if (mode >> 6 | mode >> 3) & ~mode & 0o5:
            self._private[path] = member.uid, member.gid, mode

    def _write(self, path: str, member: Member) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            while chunk := member.content.read(CHUNK):
                self._left -= len(chunk)
                if self._left < 0:
                    raise too_large(self._limit)
                file.write(chunk)

    def _linked(self, member: Member) -> str:
        """Returns the file that a hard link is another name of."""
        *above, name = _parts(member.target) or [""]
        folder = self._walk(above, make=False)
        path = str(folder / name) if folder is not None and name else ""
        if not os.path.lexists(path) or stat.S_ISDIR(os.lstat(path).st_mode):
            raise unusable(f"{shown(member.name)} is a hard link to {shown(member.target)}, which is no file")
        return path

    def _make_room(self, path: str, kind: Kind) -> None:
        """Removes what an entry replaces; a folder that is one already stays."""
        try:
            found = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if not (stat.S_ISDIR(found) and kind is Kind.FOLDER):
            self._remove(path, found)

    def _remove(self, path: str, mode: int) -> None:
        self._folders.clear()  # the way to some may have led through it
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    # -- what a layer takes away

    def _white_out(self, above: list[str], name: str) -> None:
        folder = self._walk(above, make=False)
        hidden = name.removeprefix(_WHITEOUT)
        if name == _OPAQUE:
            if folder is not None:
                self._hide_below(str(folder))
        elif name.startswith(_INTERNAL):
            return
        elif hidden in ("", ".", ".."):
            raise unusable(f"{shown(name)} takes away what is no file")
        elif folder is not None:
            self._hide(str(folder / hidden))

    def _hide(self, path: str) -> None:
        """Takes away what lower layers have at a path; what this one has is not meant."""
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        if path not in self._added:
            self._remove(path, mode)
        elif stat.S_ISDIR(mode):
            self._hide_below(path)

    def _hide_below(self, folder: str) -> None:
        for name in os.listdir(folder):
            self._hide(os.path.join(folder, name))

    # -- places

    def _walk(self, above: list[str], *, make: bool) -> Path | None:
        """Returns a folder of the root, through links, which may be made; None where there is none."""
        key = "/".join(above)
        if key in self._folders:
            return self._folders[key]
        place: list[str] = []
        steps, hops = above[::-1], 0
        while steps:
            step = steps.pop()
            if step == "..":
                del place[-1:]  # above the top is the top
                continue
            here = self.root.joinpath(*place, step)
            try:
                mode = os.lstat(here).st_mode
            except FileNotFoundError:
                if not make:
                    return None
                self._count()
                here.mkdir()
                here.chmod(0o755)
                self._added.add(str(here))
                mode = stat.S_IFDIR
            if stat.S_ISLNK(mode):
                hops += 1
                if hops > _MOST_HOPS:
                    raise unusable(f"{shown(key)} goes round in circles")
                target = os.readlink(here)
                place = [] if target.startswith("/") else place
                steps += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif stat.S_ISDIR(mode):
                place.append(step)
            elif make:
                raise unusable(f"{shown(key)} is to be a folder, and is a file")
            else:
                return None
        found = self._folders[key] = self.root.joinpath(*place)
        return found

    def _count(self) -> None:
        self._entries += 1
        if self._entries > MOST_FILES:
            raise unusable(f"it has over {MOST_FILES} files and folders")

    def _ids(self, user: str) -> tuple[int, set[int]]:
        name, _, group = user.partition(":")
        users = [line.split(":") for line in self.read("etc/passwd").splitlines()]
        groups = [line.split(":") for line in self.read("etc/group").splitlines()]
        uid, gid = _number(name or "0"), 0
        for entry in users:
            if len(entry) >= 4 and (entry[0] == name or (uid is not None and entry[2] == str(uid))):
                uid, gid = _number(entry[2]), _number(entry[3]) or 0
                break
        if uid is None:
            raise unusable(f"it is to be run by the user {shown(name)}, whom its /etc/passwd does not have")
        gids = {gid}
        for entry in groups:
            if len(entry) >= 4 and (entry[0] == group or name in entry[3].split(",")):
                gids.add(_number(entry[2]) or 0)
        return uid, gids | {_number(group) or 0} if group else gids


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise unusable(f"{shown(name)} leads out of it")
    if len(parts) > _DEEPEST or len(os.fsencode(name)) > _LONGEST:
        raise unusable(f"{shown(name)} is too long")
    return parts


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def _give(path: str, member: Member) -> None:
    """Lets a file be whose it is in the image, where this process may say so."""
    if os.geteuid() != 0:
        return
    try:
        os.lchown(path, member.uid, member.gid)
    except OverflowError:
        raise unusable(f"{shown(member.name)} belongs to {member.uid}, who cannot be") from None
    except PermissionError:
        return
    except OSError as error:
        if error.errno != errno.EINVAL:  # a user that this namespace does not have
            raise
