"""What is made once: whole or not at all, by one of many, and gone when something newer has long taken its place."""

import os
import threading
import time
from pathlib import Path

import pytest

from martlet.microvm.store import Store

TWO_DAYS = 2 * 86_400


def write(work: Path) -> None:
    (work / "file").write_text("whole")


def names(store: Store) -> set[str]:
    return {path.name for path in store.folder.iterdir() if path.name != ".lock"}


def test_of_many_that_ask_at_once_one_makes_it(tmp_path: Path):
    made: list[Path] = []
    found: list[str] = []

    def build(work: Path) -> None:
        made.append(work)
        write(work)

    def ask() -> None:
        found.append((Store(tmp_path).get("guest", "1", build) / "file").read_text())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == ["whole"] * 8
    assert len(made) == 1


def test_what_fails_leaves_nothing_and_can_be_tried_again(tmp_path: Path):
    store = Store(tmp_path)

    def fail(work: Path) -> None:
        write(work)
        raise OSError("the machine did not start")

    with pytest.raises(OSError, match="did not start"):
        store.get("guest", "1", fail)

    assert names(store) == set()
    assert (store.get("guest", "1", write) / "file").read_text() == "whole"


def test_what_one_who_was_killed_has_left_is_removed(tmp_path: Path):
    store = Store(tmp_path)
    left = tmp_path / ".work-0123"
    left.mkdir()
    write(left)

    store.get("guest", "1", write)

    assert names(store) == {"guest-1"}


def test_older_versions_go_once_nobody_has_asked_for_them_for_a_day(tmp_path: Path):
    store = Store(tmp_path)
    for name, version in (("guest", "1"), ("guest", "2"), ("other", "1")):
        folder = store.get(name, version, write)
        os.utime(folder, (time.time() - TWO_DAYS,) * 2)
    store.get("guest", "2", write)

    store.get("guest", "3", write)

    assert names(store) == {"guest-2", "guest-3", "other-1"}
