"""What `Blobs` do, wherever they are."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from martlet.storage.blobs import PART, BlobCorrupt, BlobError, BlobNotFound, Blobs
from tests.s3 import CREDENTIALS, S3Server

pytestmark = pytest.mark.anyio

A, B = "a" * 64, "b" * 64
LARGE = bytes(range(256)) * (2 * PART // 256) + b"the rest"


@pytest.fixture(params=["memory", "local", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    if request.param == "memory":
        return Blobs.memory()
    if request.param == "local":
        return Blobs.local(tmp_path / "blobs")
    server: S3Server = request.getfixturevalue("s3_server")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Blobs.s3(server.bucket(f"contract/{secrets.token_hex(4)}"))


@pytest.mark.parametrize("data", [b"", b"\0\xff", b"hello", LARGE], ids=["empty", "binary", "small", "large"])
async def test_get_returns_what_was_put(blobs: Blobs, data: bytes) -> None:
    await blobs.put("packages", A, data)
    assert await blobs.get("packages", A) == data


async def test_a_file_may_be_put_and_fetched(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(LARGE)
    await blobs.put("packages", A, tmp_path / "source")
    target = tmp_path / "target"
    await blobs.fetch("packages", A, target)
    assert target.read_bytes() == LARGE
    assert await blobs.get("packages", A) == LARGE


async def test_fetch_replaces_the_target(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    await blobs.put("packages", A, b"new")
    await blobs.fetch("packages", A, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"new"


async def test_several_may_fetch_the_same_blob_to_the_same_target(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put("packages", A, LARGE)
    await asyncio.gather(*(blobs.fetch("packages", A, tmp_path / "target") for _ in range(4)))
    assert (tmp_path / "target").read_bytes() == LARGE
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["target"]


async def test_what_is_not_there_is_not_found(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put("packages", A, b"a")
    with pytest.raises(BlobNotFound):
        await blobs.get("packages", B)
    with pytest.raises(BlobNotFound):
        await blobs.get("wheels", A)
    with pytest.raises(BlobNotFound):
        await blobs.fetch("packages", B, tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_exists(blobs: Blobs) -> None:
    assert not await blobs.exists("packages", A)
    await blobs.put("packages", A, b"a")
    assert await blobs.exists("packages", A)
    assert not await blobs.exists("packages", B)


async def test_delete_removes_once_and_only_that(blobs: Blobs) -> None:
    await blobs.put("packages", A, b"a")
    await blobs.put("packages", B, b"b")
    await blobs.delete("packages", A)
    await blobs.delete("packages", A)
    assert not await blobs.exists("packages", A)
    assert await blobs.get("packages", B) == b"b"


async def test_several_may_delete_the_same_at_once(blobs: Blobs) -> None:
    for _ in range(20):
        await blobs.put("packages", A, b"a")
        await asyncio.gather(*(blobs.delete("packages", A) for _ in range(4)))
        assert not await blobs.exists("packages", A)


async def test_list_returns_the_digests_of_the_prefix(blobs: Blobs) -> None:
    assert await blobs.list("packages") == []
    for digest in (B, A):
        await blobs.put("packages", digest, b"")
    await blobs.put("wheels", "c" * 64, b"")
    assert await blobs.list("packages") == [A, B]
    await blobs.delete("packages", A)
    assert await blobs.list("packages") == [B]


async def test_the_same_digest_may_be_put_again_with_other_bytes(blobs: Blobs) -> None:
    await blobs.put("packages", A, b"compressed one way")
    await blobs.put("packages", A, b"compressed another")
    assert await blobs.get("packages", A) in (b"compressed one way", b"compressed another")
    assert await blobs.list("packages") == [A]
    await blobs.delete("packages", A)
    assert not await blobs.exists("packages", A)


@pytest.mark.parametrize(
    ("prefix", "digest"),
    [
        ("packages", "../" + "a" * 61),
        ("packages", "A" * 64),
        ("packages", "a" * 63),
        ("../packages", A),
        ("", A),
    ],
)
async def test_names_that_could_lead_elsewhere_are_refused(blobs: Blobs, prefix: str, digest: str) -> None:
    with pytest.raises(ValueError, match="cannot name a blob"):
        await blobs.put(prefix, digest, b"")
    with pytest.raises(ValueError, match="cannot name a blob"):
        await blobs.get(prefix, digest)


async def test_a_source_that_is_missing_is_an_error(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobError, match="nowhere") as caught:
        await blobs.put("packages", A, tmp_path / "nowhere")
    assert not isinstance(caught.value, BlobNotFound)
    assert not await blobs.exists("packages", A)


async def test_a_target_in_no_folder_is_an_error(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put("packages", A, b"a")
    with pytest.raises(BlobError, match="nowhere") as caught:
        await blobs.fetch("packages", A, tmp_path / "nowhere" / "target")
    assert not isinstance(caught.value, BlobNotFound)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _flip, _empty])
async def test_damage_is_noticed_and_healed(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    blobs = Blobs.local(tmp_path / "blobs")
    await blobs.put("packages", A, LARGE)
    (file,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    damage(file)
    with pytest.raises(BlobCorrupt):
        await blobs.get("packages", A)
    with pytest.raises(BlobCorrupt):
        await blobs.fetch("packages", A, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    await blobs.put("packages", A, LARGE)
    assert await blobs.get("packages", A) == LARGE


async def test_a_local_blob_is_a_plain_file(tmp_path: Path) -> None:
    await Blobs.local(tmp_path / "blobs").put("packages", A, b"hello")
    file = tmp_path / "blobs" / "packages" / A / hashlib.sha256(b"hello").hexdigest()
    assert file.read_bytes() == b"hello"
    assert await Blobs.local(tmp_path / "blobs").get("packages", A) == b"hello"
