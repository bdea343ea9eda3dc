"""The packages of a machine: unpacked once for all lanes, bounded, and never taken from under an instance."""

import asyncio
import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from martlet.node import packages
from martlet.node.packages import PackageCache
from martlet.package.packing import PREFIX, pack
from martlet.package.rules import Limits
from martlet.package.unpacking import Corrupt
from martlet.storage.blobs import BlobNotFound, Blobs

pytestmark = pytest.mark.anyio

Store = Callable[..., str]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs.local(tmp_path / "blobs")


@pytest.fixture
def store(tmp_path: Path, blobs: Blobs) -> Store:
    """Stores a package of these files and returns its digest."""

    def store_files(size: int = 10, **files: str) -> str:
        folder = tmp_path / "source"
        folder.mkdir()
        for name, text in (files or {"handler": "x" * size}).items():
            (folder / f"{name}.py").write_text(text)
        package = pack(folder, tmp_path / "packed", Limits(bytes=10**8, entries=10**5))
        blobs._put(PREFIX, package.digest, package.path)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return package.digest

    return store_files


def contents(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_a_package_is_unpacked_once_and_readable_by_everybody(tmp_path, blobs, store):
    digest = store(handler="def handle(r): ...")
    before = os.umask(0o077)
    try:
        cache = PackageCache(tmp_path / "cache", blobs)
        folder = await cache.ensure(digest)
    finally:
        os.umask(before)
    assert (folder / "handler.py").read_text() == "def handle(r): ..."
    for path in (folder, *folder.parents[:2]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "handler.py").stat().st_mode) == 0o644
    await blobs.delete(PREFIX, digest)
    assert await cache.ensure(digest) == folder
    assert await PackageCache(tmp_path / "cache", blobs).ensure(digest) == folder
    assert contents(tmp_path / "cache") == {digest}


async def test_what_an_instance_has_of_a_package_is_held_for_it_again(tmp_path, blobs, store):
    small, large = store(size=1000), store(size=3000)
    first_life = PackageCache(tmp_path / "cache", blobs)
    await first_life.ensure(small)
    made = time.time() + 1
    first_life.close()
    before = len(os.listdir("/proc/self/fd"))
    next_life = PackageCache(tmp_path / "cache", blobs, max_bytes=2000)

    assert all(await asyncio.gather(*(next_life.hold(small, made) for _ in range(5))))

    assert len(os.listdir("/proc/self/fd")) == before + 1
    await next_life.ensure(large)
    assert contents(tmp_path / "cache") == {small, large}


async def test_a_package_that_was_evicted_since_is_not_held(tmp_path, blobs, store):
    digest = store()
    cache = PackageCache(tmp_path / "cache", blobs)
    made = time.time() - 1

    assert not await cache.hold(digest, made)
    await cache.ensure(digest)
    assert not await cache.hold(digest, made)


async def test_many_who_need_a_package_at_once_get_the_same(tmp_path, blobs, store):
    digest = store()
    caches = [PackageCache(tmp_path / "cache", blobs) for _ in range(3)]
    folders = await asyncio.gather(*(cache.ensure(digest) for cache in caches for _ in range(5)))
    assert len(set(folders)) == 1
    assert contents(tmp_path / "cache") == {digest}


async def test_another_lane_may_end_its_work_on_a_package_at_any_moment(tmp_path, blobs, store, monkeypatch):
    make, failed = os.mkdir, []

    def too_late(path, *args, **more):
        if Path(path).name.startswith(".") and not failed:
            failed.append(path)
            raise FileExistsError(path)
        make(path, *args, **more)

    digest = store()
    cache = PackageCache(tmp_path / "cache", blobs)
    monkeypatch.setattr(os, "mkdir", too_late)
    await cache.ensure(digest)
    assert failed
    assert contents(tmp_path / "cache") == {digest}


async def test_a_package_that_is_not_stored_is_said_to_be_missing(tmp_path, blobs):
    cache = PackageCache(tmp_path / "cache", blobs)
    with pytest.raises(BlobNotFound):
        await cache.ensure("0" * 64)
    assert contents(tmp_path / "cache") == set()


async def test_a_package_that_holds_something_else_is_refused(tmp_path, blobs, store):
    digest, other = store(1), "1" * 64
    await blobs.put(PREFIX, other, await blobs.get(PREFIX, digest))
    cache = PackageCache(tmp_path / "cache", blobs)
    with pytest.raises(Corrupt):
        await cache.ensure(other)
    assert contents(tmp_path / "cache") == set()
    await blobs.delete(PREFIX, other)
    with pytest.raises(BlobNotFound):
        await cache.ensure(other)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8b\x08\x00"])
async def test_what_is_no_package_is_refused(tmp_path, blobs, content):
    await blobs.put(PREFIX, "2" * 64, content)
    with pytest.raises(Corrupt):
        await PackageCache(tmp_path / "cache", blobs).ensure("2" * 64)


async def test_the_least_recently_needed_go_first_when_there_are_too_many(tmp_path, blobs, store):
    one, two, three = (store(number=str(n) * 1000) for n in range(3))
    cache = PackageCache(tmp_path / "cache", blobs, max_bytes=2500)
    for n, digest in enumerate((one, two)):
        await cache.ensure(digest)
        os.utime(tmp_path / "cache" / digest, (n, n))
    cache.close()
    await PackageCache(tmp_path / "cache", blobs, max_bytes=2500).ensure(three)
    assert contents(tmp_path / "cache") == {two, three}


async def test_what_any_lane_uses_is_never_evicted(tmp_path, blobs, store):
    one, two, three = (store(number=str(n) * 1000) for n in range(3))
    neighbour = PackageCache(tmp_path / "cache", blobs, max_bytes=1)
    cache = PackageCache(tmp_path / "cache", blobs, max_bytes=1)
    folder = await neighbour.ensure(one)
    await cache.ensure(two)
    await cache.ensure(three)
    assert contents(tmp_path / "cache") == {one, two, three}
    assert (folder / "number.py").exists()


async def test_what_is_used_no_more_is_let_go_after_a_while(tmp_path, blobs, store, monkeypatch):
    monkeypatch.setattr(packages, "GRACE", 0)
    monkeypatch.setattr(packages, "RELEASE_EVERY", 0)
    one, two, three = (store(number=str(n) * 1000) for n in range(3))
    in_use = {one}
    cache = PackageCache(tmp_path / "cache", blobs, max_bytes=1, in_use=lambda: in_use)
    await cache.ensure(one)
    await cache.ensure(two)
    await cache.ensure(three)
    assert contents(tmp_path / "cache") == {one, three}
    in_use.clear()
    assert (await cache.ensure(two) / "number.py").exists()
    assert contents(tmp_path / "cache") == {two}


async def test_what_a_killed_lane_left_half_done_is_swept(tmp_path, blobs, store):
    digest = store()
    left = tmp_path / "cache" / f".{digest}"
    (left / "new/files").mkdir(parents=True)
    (left / "new/files/handler.py").write_text("half")
    (tmp_path / "cache" / f".{'3' * 64}-gone").mkdir()
    cache = PackageCache(tmp_path / "cache", blobs)
    assert contents(tmp_path / "cache") == set()
    assert (await cache.ensure(digest) / "handler.py").read_text() == "x" * 10


async def test_packages_from_before_a_restart_of_the_machine_are_not_trusted(tmp_path, blobs, store):
    digest = store()
    cache = PackageCache(tmp_path / "cache", blobs)
    folder = await cache.ensure(digest)
    cache.close()
    (folder / "handler.py").write_text("")  # as a file system may leave it that lost its power
    record = tmp_path / "cache" / digest / "record"
    record.write_text(f"10 {'0' * 36}")
    assert (
        await PackageCache(tmp_path / "cache", blobs).ensure(digest) / "handler.py"
    ).read_text() == "x" * 10


def _lane(cache: Path, blobs: Path, digests: list[str]) -> None:
    """Needs packages for ever, in a cache with room for one, and ends with 1 if one is not as it should be."""

    async def work() -> None:
        while True:
            mine = PackageCache(cache, Blobs.local(blobs), max_bytes=1)
            for number, digest in enumerate(digests):
                folder = await mine.ensure(digest)
                if (folder / "number.py").read_text() != str(number) * 1000:
                    os._exit(1)
            mine.close()

    try:
        asyncio.run(work())
    finally:
        os._exit(1)


async def test_lanes_that_are_killed_at_any_moment_spoil_nothing(tmp_path, blobs, store):
    digests = [store(number=str(n) * 1000) for n in range(3)]
    context = multiprocessing.get_context("spawn")
    started = [
        context.Process(target=_lane, args=(tmp_path / "cache", tmp_path / "blobs", digests))
        for _ in range(3)
    ]
    for lane in started:
        lane.start()
    cache = tmp_path / "cache"
    deadline = time.monotonic() + 60
    while not cache.exists() or not contents(cache):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    for lane in started:
        for _ in range(20):
            contents(cache)
            await asyncio.sleep(0.005)
        assert lane.exitcode is None, "a lane saw a package that was not whole"
        os.kill(lane.pid, signal.SIGKILL)
        lane.join()
        assert lane.exitcode == -signal.SIGKILL
    left = PackageCache(cache, blobs)
    assert all(not name.startswith(".") for name in contents(cache))
    for number, digest in enumerate(digests):
        assert (await left.ensure(digest) / "number.py").read_text() == str(number) * 1000
