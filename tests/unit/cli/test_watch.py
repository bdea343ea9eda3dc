"""Noticing that files changed."""

import asyncio
import os

import pytest

from martlet.cli.watch import changes, snapshot

pytestmark = pytest.mark.anyio


def touch(path, text):
    """Writes a file with a time of its own, however coarse the clock of the file system is."""
    time = path.stat().st_mtime_ns + 1_000_000_000 if path.exists() else None
    path.write_text(text)
    if time is not None:
        os.utime(path, ns=(time, time))


def test_what_a_deploy_leaves_out_is_not_looked_at(folder):
    (folder / ".martletignore").write_text("*.log\n")
    (folder / "big.log").touch()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "handler.pyc").touch()
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").touch()
    assert sorted(snapshot(folder)) == ["deep/er/file", "handler.py"]


async def test_changed_added_and_removed_files_are_named_once(folder):
    (folder / "old.txt").touch()
    found: list[list[str]] = []

    async def look():
        async for changed in changes(folder, interval=0.01):
            found.append(changed)  # noqa: PERF401 (it never ends)

    async def found_are(count):
        while len(found) < count:
            await asyncio.sleep(0.05)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look())
        await asyncio.sleep(0)  # the first look is what later ones are compared with
        touch(folder / "handler.py", "x = 1")
        touch(folder / "new.txt", "")
        (folder / "old.txt").unlink()
        await found_are(1)
        touch(folder / "handler.py", "x = 2")
        await found_are(2)
        looking.cancel()
    assert found == [["handler.py", "new.txt", "old.txt"], ["handler.py"]]


def test_one_file_is_watched_with_its_manifest(folder):
    assert sorted(snapshot(folder / "handler.py")) == ["handler.py"]
    (folder / "martlet.yaml").touch()
    assert sorted(snapshot(folder / "handler.py")) == ["handler.py", "martlet.yaml"]
