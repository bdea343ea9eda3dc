"""The canonical form: the same files make the same package, and come back as they were."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import Invalid
from martlet.package.ignore import Ignore
from martlet.package.packing import Package, pack
from martlet.package.rules import Limits
from martlet.package.unpacking import Corrupt, unpack

LIMITS = Limits(bytes=1_000_000, entries=100)


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def packed(folder: Path, ignore: Ignore | None = None) -> Package:
    return pack(folder, folder.with_name(f"{folder.name}.tar.gz"), LIMITS, ignore)


def back(package: Package, folder: Path) -> Path:
    folder.mkdir()
    with package.path.open("rb") as file:
        unpack(file, package.digest, folder)
    return folder


def tree(folder: Path) -> dict[str, object]:
    """Returns everything in a folder: contents of files, targets of links, None for folders, and modes."""

    def shown(path: Path) -> object:
        if path.is_symlink():
            return os.readlink(path)
        return None if path.is_dir() else (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))

    return {str(path.relative_to(folder)): shown(path) for path in folder.rglob("*")}


def test_time_owner_mode_order_and_place_make_no_difference(tmp_path: Path) -> None:
    files = {"b.py": "1", "a/c.py": "2", "a/b.py": "3"}
    one = write(tmp_path / "one", files)
    other = write(tmp_path / "other/deeper", dict(reversed(files.items())))
    (other / "b.py").chmod(0o600)
    (other / "a").chmod(0o700)
    os.utime(other / "b.py", (1, 1))
    first, second = packed(one), packed(other)
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.py").write_text("other"),
        lambda folder: (folder / "a.py").chmod(0o755),
        lambda folder: (folder / "a.py").rename(folder / "b.py"),
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: (folder / "link").symlink_to("a.py"),
    ],
)
def test_every_change_that_matters_makes_another_package(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    folder = write(tmp_path / "folder", {"a.py": "1"})
    before = packed(folder).digest
    change(folder)
    assert packed(folder).digest != before


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", {"a.py": "1", "bin/run": "#!", "größe/" + "n" * 150: b"\0" * 5000})
    (folder / "bin/run").chmod(0o755)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("bin/run")
    (folder / "bin/up").symlink_to("../größe")
    (folder / "dangling").symlink_to("nowhere")
    package = packed(folder)
    assert tree(back(package, tmp_path / "back")) == tree(folder)
    assert (package.bytes, package.entries) == (5003, 9)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=["Cc"]), min_size=1)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map("/".join)


@given(
    st.dictionaries(
        paths.filter(lambda path: len(path.encode()) < 200), st.binary(max_size=2000), min_size=1, max_size=15
    )
)
@settings(max_examples=60)
def test_any_tree_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    base = tmp_path_factory.mktemp("tree")
    folder = base / "folder"
    for name, content in files.items():
        try:
            write(folder, {name: content})
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    assert tree(back(packed(folder), base / "back")) == tree(folder)


def test_a_package_that_was_changed_is_not_unpacked(tmp_path: Path) -> None:
    package = packed(write(tmp_path / "folder", {"a.py": "1"}))
    other = packed(write(tmp_path / "other", {"a.py": "2"}))
    (tmp_path / "back").mkdir()
    with other.path.open("rb") as file, pytest.raises(Corrupt):
        unpack(file, package.digest, tmp_path / "back")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, bind])
def test_special_files_of_a_folder_are_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    folder = write(tmp_path / "folder", {"a.py": "1"})
    make(folder / "special")
    with pytest.raises(Invalid, match="'special' is a device, a FIFO or a socket"):
        packed(folder)


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
def test_links_of_a_folder_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    folder = write(tmp_path / "folder", {"a.py": "1", "sub/b.py": "1"})
    (folder / "link").symlink_to(target)
    with pytest.raises(Invalid, match="'link'"):
        packed(folder)


@pytest.mark.parametrize("files", [{}, {".git/config": "x"}])
def test_a_folder_with_nothing_to_pack_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, files)
    with pytest.raises(Invalid, match="no files"):
        packed(folder, Ignore.of(folder))


def test_the_limits_hold_for_folders_too(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="unpacks to over"):
        packed(write(tmp_path / "large", {"a": bytes(1_000_001)}))
    with pytest.raises(Invalid, match="over 100 files"):
        packed(write(tmp_path / "many", {str(n): "" for n in range(101)}))


def test_what_is_ignored_does_not_count(tmp_path: Path) -> None:
    folder = write(tmp_path / "folder", {"a.py": "1", ".venv/large": bytes(2_000_000)})
    os.mkfifo(folder / ".git")
    assert packed(folder, Ignore.of(folder)).entries == 1
