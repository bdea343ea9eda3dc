"""Folders as streams: what a guest gets is what was packed."""

import os
import stat
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest

from martlet.microvm import folders


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "package/inner").mkdir(parents=True)
    (source / "empty").mkdir(mode=0o700)
    (source / "large").write_bytes(os.urandom(3 * folders.PIECE + 1))
    (source / "nothing").touch()
    (source / "package/inner/program").write_text("#!/bin/sh\n")
    (source / "package/inner/program").chmod(0o775)
    (source / "package/nowhere").symlink_to("../not/there")
    (source / "package/inner/up").symlink_to("..")
    (source / os.fsdecode(b"not \xff utf-8")).write_text("known by its bytes")
    os.utime(source / "large", ns=(1, 1_234_567_890_123_456_789))
    return source


def unpacked(stream: Iterable[bytes], at: Path) -> Path:
    at.mkdir()
    folders.unpack(BytesIO(b"".join(stream)).read, str(at))
    return at


def seen(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Modes of all that is in a folder, and contents: of files, and of links where they lead."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for path in folder.rglob("*"):
        mode, content = path.lstat().st_mode, None
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = mode, content
    return found


def test_all_that_is_in_a_folder_comes_with_its_mode(source: Path, tmp_path: Path):
    target = unpacked(folders.pack(str(source)), tmp_path / "target")

    assert seen(target) == seen(source)
    assert len(seen(target)) == 9


def test_a_file_was_changed_when_it_was_changed(source: Path, tmp_path: Path):
    """By which Python knows whether what it has compiled is up to date."""
    target = unpacked(folders.pack(str(source)), tmp_path / "target")

    assert (target / "large").stat().st_mtime_ns == 1_234_567_890_123_456_789


def test_a_stream_that_ends_within_a_file_is_refused(source: Path, tmp_path: Path):
    stream = b"".join(folders.pack(str(source)))
    end = stream.index(b"large") + folders.PIECE

    with pytest.raises(OSError, match="in part only"):
        unpacked([stream[:end]], tmp_path / "target")


def test_what_is_neither_file_nor_folder_nor_link_stays_where_it_is(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    (source / "file").write_text("content")

    assert set(seen(unpacked(folders.pack(str(source)), tmp_path / "target"))) == {"file"}


def test_files_that_are_nowhere_are_packed_by_their_names(tmp_path: Path):
    files = {"handler.py": b"def handle(request): ...\n", "empty": b""}

    target = unpacked(folders.pack_files(files), tmp_path / "target")

    assert {path.name: path.read_bytes() for path in target.iterdir()} == files
    assert stat.S_IMODE((target / "handler.py").stat().st_mode) == 0o644
