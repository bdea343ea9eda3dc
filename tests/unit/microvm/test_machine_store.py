"""What is made once: whole or not at all, by one of many, and gone when something newer has long taken its place."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from martlet.errors import Unavailable
from martlet.microvm.store import Store

TWO_DAYS = 2 * 86_400
HALF = """
import sys, time
from pathlib import Path
from martlet.microvm.store import Store
def build(work):
    (work / "file").write_text("who")
    print("half", flush=True)
    time.sleep(600)
Store(Path(sys.argv[1]), print).get("guest", "1", build)
"""


def write(work: Path) -> None:
    (work / "file").write_text("whole")


def write_large(work: Path) -> None:
    """Writes a file with a hole, and data on both sides of it."""
    with (work / "file").open("wb") as file:
        file.write(b"begin")
        file.seek(3_000_000)
        file.write(bytes(1_500_000) + b"end")


def never(work: Path) -> None:
    pytest.fail("it was built")


def names(store: Store) -> set[str]:
    return {path.name for path in store.folder.iterdir() if path.name != ".lock"}


def test_of_many_that_ask_at_once_one_makes_it(tmp_path: Path):
    made: list[Path] = []
    found: list[str] = []

    def build(work: Path) -> None:
        made.append(work)
        write(work)

    def ask() -> None:
        found.append((Store(tmp_path, print).get("guest", "1", build) / "file").read_text())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == ["whole"] * 8
    assert len(made) == 1


def test_what_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path):
    store = Store(tmp_path, print)

    def fail(work: Path) -> None:
        write(work)
        raise OSError("the machine did not start")

    with pytest.raises(OSError, match="did not start"):
        store.get("guest", "1", fail)

    assert names(store) == set()
    assert (store.get("guest", "1", write) / "file").read_text() == "whole"


def test_what_one_who_was_killed_has_left_is_removed(tmp_path: Path):
    store = Store(tmp_path, print)
    left = tmp_path / ".work-0123"
    left.mkdir()
    write(left)

    store.get("guest", "1", write)

    assert names(store) == {"guest-1"}


def test_older_versions_go_once_nobody_has_asked_for_them_for_a_day(tmp_path: Path):
    store = Store(tmp_path, print)
    for name, version in (("guest", "1"), ("guest", "2"), ("other", "1")):
        folder = store.get(name, version, write)
        os.utime(folder, (time.time() - TWO_DAYS,) * 2)
    store.get("guest", "2", write)

    store.get("guest", "3", write)

    assert names(store) == {"guest-2", "guest-3", "other-1"}


def damage(folder: Path) -> None:
    contents = bytearray((folder / "file").read_bytes())
    contents[1] ^= 1
    (folder / "file").write_bytes(contents)


def cut(folder: Path) -> None:
    os.truncate(folder / "file", 2)


def replace(folder: Path) -> None:
    (folder / "file").unlink()
    (folder / "file").write_text("Whole")


def lose(folder: Path) -> None:
    (folder / "file").unlink()


def add(folder: Path) -> None:
    (folder / "another").touch()


def rename_version(folder: Path) -> None:
    document = json.loads((folder / "contents.json").read_text())
    (folder / "contents.json").write_text(json.dumps(document | {"version": "0"}))


def garble_list(folder: Path) -> None:
    (folder / "contents.json").write_text("{")


def lose_list(folder: Path) -> None:
    (folder / "contents.json").unlink()


@pytest.mark.parametrize(
    "harm", [damage, cut, replace, lose, add, rename_version, garble_list, lose_list, shutil.rmtree]
)
def test_what_is_not_as_it_was_made_is_made_anew(tmp_path: Path, harm: Callable[[Path], None]):
    said: list[str] = []
    made: list[Path] = []

    def build(work: Path) -> None:
        made.append(work)
        write(work)

    store = Store(tmp_path, said.append)
    folder = store.get("guest", "1", build)

    harm(folder)

    assert store.find("guest", "1") is None
    assert (store.get("guest", "1", build) / "file").read_text() == "whole"
    assert len(made) == 2
    assert names(store) == {"guest-1"}
    assert (said == []) == (harm is shutil.rmtree)


def test_what_is_damaged_stays_with_those_who_have_it_open(tmp_path: Path):
    store = Store(tmp_path, print)
    folder = store.get("guest", "1", write)

    with (folder / "file").open() as file:
        lose_list(folder)
        store.get("guest", "1", write)
        assert file.read() == "whole"


def test_a_copy_is_what_it_was(tmp_path: Path):
    store, other = Store(tmp_path / "one", print), Store(tmp_path / "other", print)
    folder = store.get("guest", "1", write_large)

    subprocess.run(["cp", "--sparse=always", "-r", folder, other.folder], check=True)

    assert other.find("guest", "1") == other.folder / "guest-1"
    assert other.get("guest", "1", never) == other.folder / "guest-1"
    damage(other.folder / "guest-1")
    assert other.find("guest", "1") is None


def test_one_who_is_killed_at_work_leaves_nothing_that_is_used(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HALF, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.kill()
    store = Store(tmp_path, print)

    assert store.find("guest", "1") is None
    assert (store.get("guest", "1", write) / "file").read_text() == "whole"
    assert names(store) == {"guest-1"}


def test_a_disk_that_is_full_is_said_and_nothing_is_left(tmp_path: Path):
    def fill(work: Path) -> None:
        write(work)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = Store(tmp_path, print)

    with pytest.raises(Unavailable, match="the disk is full"):
        store.get("guest", "1", fill)

    assert names(store) == set()
