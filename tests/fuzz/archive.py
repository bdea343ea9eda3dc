"""What people upload: taken as it is or refused with a sentence, and never a thing outside of its folder."""

import gzip
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from pathlib import Path

from martlet.errors import Invalid
from martlet.package.archive import unpack_archive
from martlet.package.packing import pack
from martlet.package.rules import Limits
from martlet.package.tar import BLOCK
from martlet.package.unpacking import unpack

LIMITS = Limits(bytes=20_000, entries=20)


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Returns a tar with these entries, whatever they are."""
    blocks = [
        info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % BLOCK)
        for info, content in members
    ]
    return b"".join(blocks) + bytes(2 * BLOCK)


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Returns an entry of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def zip_of(members: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """Returns a zip with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    """Returns the head of a link in a zip."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


TREE = [
    member("a/", kind=tarfile.DIRTYPE),
    member("a/b.py", b"print()"),
    member("l", kind=tarfile.SYMTYPE, target="a/b.py"),
    member("h", kind=tarfile.LNKTYPE, target="a/b.py"),
]
SEEDS = [
    tar_of(TREE),
    tar_of([member("ö" * 90, b"x" * 600)]),
    tar_of([member("n" * 120, b"x"), *TREE], tarfile.GNU_FORMAT),
    gzip.compress(tar_of(TREE, tarfile.USTAR_FORMAT)),
    zip_of([(zipfile.ZipInfo("a/b.py"), b"print()"), (link("l"), b"a/b.py"), (zipfile.ZipInfo("d/"), b"")]),
]


def tree(folder: Path) -> dict[str, object]:
    """Returns everything in a folder: contents and modes of files, targets of links, None for folders."""

    def shown(path: Path) -> object:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(path)
        if stat.S_ISDIR(status.st_mode):
            return None
        assert stat.S_ISREG(status.st_mode), f"{path} is a special file"
        assert status.st_nlink == 1
        assert stat.S_IMODE(status.st_mode) in (0o644, 0o755)
        return path.read_bytes(), status.st_mode

    return {str(path.relative_to(folder)): shown(path) for path in folder.rglob("*")}


def check_archive(content: bytes) -> str:
    """Raises AssertionError where an upload does what no upload may; returns why it is refused, ``""`` if it is not."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        folder = base / "work/folder"
        folder.mkdir(parents=True)
        (base / "upload").write_bytes(content)
        try:
            unpack_archive(base / "upload", folder, LIMITS)
            package = pack(folder, base / "package", LIMITS)
        except Invalid as refusal:
            assert {path.name for path in base.iterdir()} <= {"upload", "work", "package"}
            assert refusal.detail.startswith("the code cannot be taken: ")
            assert refusal.detail.isprintable()
            return refusal.detail
        finally:
            assert [path.name for path in folder.parent.iterdir()] == ["folder"]
            found = tree(folder)
            files = [entry for entry in found.values() if isinstance(entry, tuple)]
            assert len(found) <= LIMITS.entries
            assert sum(len(body) for body, _ in files) <= LIMITS.bytes
        for path, target in found.items():
            if isinstance(target, str):
                assert Path(os.path.realpath(folder / path)).is_relative_to(folder), f"{path} leads out"
        assert (package.entries, package.bytes) == (len(found), sum(len(body) for body, _ in files))
        again = base / "again"
        again.mkdir()
        with package.path.open("rb") as file:
            assert unpack(file, package.digest, again) == package.bytes
        assert tree(again) == found
        repacked = pack(again, base / "repacked", LIMITS)
        assert repacked.digest == package.digest
        assert repacked.path.read_bytes() == package.path.read_bytes()
        return ""


def repaired(content: bytes) -> bytes:
    """Returns a tar whose headers have checksums that hold, so that mutations of them are read at all."""
    blocks = bytearray(content)
    for at in range(0, len(blocks) - BLOCK + 1, BLOCK):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + BLOCK])
    return bytes(blocks)


def check(data: bytes) -> None:
    """The target of a fuzzer."""
    check_archive(repaired(data))
