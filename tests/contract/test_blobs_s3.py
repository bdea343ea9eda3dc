"""What blobs on S3 do besides, over a real server and a link that fails."""

import asyncio
import hashlib
import multiprocessing
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError

from martlet.bucket import Bucket
from martlet.errors import Invalid
from martlet.storage.blobs import PART, BlobCorrupt, BlobError, BlobNotFound, Blobs
from tests.faulty_link import FaultyLink
from tests.s3 import CREDENTIALS, KEY, SECRET, S3Server

pytestmark = pytest.mark.anyio

A = "a" * 64
PACKAGE = os.urandom(2 * PART + 1000)
"""Three parts."""
PATIENT = 120
"""Seconds after which a test has hung."""


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def link(s3_server: S3Server) -> Iterator[FaultyLink]:
    link = FaultyLink(s3_server.port)
    yield link
    print(link)  # shown where the test failed
    link.close()


@pytest.fixture
def bucket(s3_server: S3Server, link: FaultyLink) -> Bucket:
    return s3_server.bucket(f"faults/{secrets.token_hex(4)}", link.port)


@pytest.fixture
def blobs(bucket: Bucket) -> Blobs:
    return Blobs.s3(bucket, request_seconds=30, retry_seconds=60)


def impatient(bucket: Bucket) -> Blobs:
    """Blobs that are given up so soon that a busy machine alone may be the reason."""
    return Blobs.s3(bucket, request_seconds=1, retry_seconds=1)


async def test_a_large_blob_is_fetched_on_from_where_it_was_cut(
    blobs: Blobs, link: FaultyLink, tmp_path: Path
) -> None:
    await blobs.put("packages", A, PACKAGE)
    link.breaks_after, before = PART + PART // 2, link.passed
    await blobs.fetch("packages", A, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == PACKAGE
    assert link.breaks_after is None, "nothing was cut"
    assert link.passed - before < len(PACKAGE) + PART, "what had come was fetched again"


async def test_a_large_blob_is_sent_in_parts_and_only_the_one_that_was_cut_again(
    blobs: Blobs, link: FaultyLink
) -> None:
    link.breaks_after = PART + PART // 2
    await blobs.put("packages", A, PACKAGE)
    assert link.breaks_after is None, "nothing was cut"
    assert link.passed < len(PACKAGE) + PART + PART // 2, "more than the part that was cut was sent again"
    assert await blobs.get("packages", A) == PACKAGE


async def test_a_slow_service_is_waited_for(blobs: Blobs, link: FaultyLink) -> None:
    link.delay = 0.005
    await blobs.put("packages", A, PACKAGE)
    assert await blobs.get("packages", A) == PACKAGE


async def test_a_service_that_falls_silent_is_given_up(
    blobs: Blobs, bucket: Bucket, link: FaultyLink, tmp_path: Path
) -> None:
    await blobs.put("packages", A, b"there")
    link.silent = True
    short = impatient(bucket)
    waits = [
        short.put("packages", "b" * 64, PACKAGE),
        short.get("packages", A),
        short.fetch("packages", A, tmp_path / "target"),
        short.exists("packages", A),
        short.delete("packages", A),
        short.list("packages"),
    ]
    async with asyncio.timeout(PATIENT):
        for error in await asyncio.gather(*waits, return_exceptions=True):
            assert type(error) is BlobError
    assert list(tmp_path.iterdir()) == []
    link.silent = False
    assert await blobs.get("packages", A) == b"there"
    assert not await blobs.exists("packages", "b" * 64)


async def test_a_service_that_falls_silent_in_the_middle_is_given_up(
    blobs: Blobs, bucket: Bucket, link: FaultyLink, tmp_path: Path
) -> None:
    await blobs.put("packages", A, PACKAGE)
    link.silent_after = PART // 4
    async with asyncio.timeout(PATIENT):
        with pytest.raises(BlobError):
            await Blobs.s3(bucket, request_seconds=4, retry_seconds=1).fetch(
                "packages", A, tmp_path / "target"
            )
    assert link.silent, "it was given up before"
    assert list(tmp_path.iterdir()) == []


async def test_a_service_that_is_gone_is_said_to_be_and_may_come_back(
    s3_server: S3Server, blobs: Blobs, bucket: Bucket
) -> None:
    await blobs.put("packages", A, b"kept")
    s3_server.kill()
    async with asyncio.timeout(PATIENT):
        with pytest.raises(BlobError, match=f"127.0.0.1:{bucket.endpoint[-5:]}") as caught:
            await impatient(bucket).get("packages", A)
        assert not isinstance(caught.value, BlobNotFound)
        waiting = asyncio.ensure_future(blobs.get("packages", A))
        await asyncio.to_thread(s3_server.start)
        assert await waiting == b"kept"


@pytest.mark.parametrize(("said", "tries"), [("connection was not ready", 3), ("it is on fire", 1)])
async def test_what_was_not_sent_for_a_closed_connection_is_sent_again(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, said: str, tries: int
) -> None:
    put, asked = obstore.put, []

    def refusing(*args: Any, **kwargs: Any) -> object:
        asked.append(args)
        if len(asked) < 3:
            raise GenericError(f"Generic S3 error\n{said}")
        return put(*args, **kwargs)

    monkeypatch.setattr(obstore, "put", refusing)
    if tries == 1:
        with pytest.raises(BlobError):
            await blobs.put("packages", A, b"kept")
    else:
        await blobs.put("packages", A, b"kept")
        assert await blobs.get("packages", A) == b"kept"
    assert len(asked) == tries


async def test_the_keys_and_what_the_service_says_about_them_are_not_told(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    for name in (KEY, "AN-UNKNOWN-KEY"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name)
        with pytest.raises(BlobError, match="403") as caught:
            await Blobs.s3(bucket).list("packages")
        assert "a-wrong-secret" not in str(caught.value)
        assert name not in str(caught.value)
    with pytest.raises(BlobError, match=r"\((SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied)\)"):
        await Blobs.s3(bucket).list("packages")


async def test_a_bucket_that_is_not_there_is_out_of_reach_and_not_empty(bucket: Bucket) -> None:
    with pytest.raises(BlobError, match="NoSuchBucket"):
        await Blobs.s3(replace(bucket, name="nowhere")).list("packages")


async def test_keys_may_be_in_a_file_and_change_there(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setattr("martlet.storage.credentials.FRESH", timedelta())  # what is read is old at once
    file.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = old\n")
    blobs = Blobs.s3(replace(bucket, credentials=file))
    with pytest.raises(BlobError, match="403"):
        await blobs.list("packages")
    file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    await blobs.put("packages", A, b"a")
    assert await blobs.get("packages", A) == b"a"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("", r"must have a section \[default\]"),
        ("[default]\naws_access_key_id = the-key\n", "aws_secret_access_key"),
        ("the-key", r"must have a section \[default\]"),
        ("\0\xff", r"must have a section \[default\]"),
    ],
)
async def test_a_file_without_keys_is_refused(
    bucket: Bucket, tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "credentials"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    with pytest.raises(Invalid, match=reason) as caught:
        Blobs.s3(replace(bucket, credentials=file))
    assert caught.value.field == "system.blobs"
    assert str(file) in str(caught.value)
    assert "the-key" not in str(caught.value)


async def test_damage_on_the_service_is_noticed_and_healed(
    bucket: Bucket, blobs: Blobs, tmp_path: Path
) -> None:
    await blobs.put("packages", A, b"hello")
    path = f"packages/{A}/{hashlib.sha256(b'hello').hexdigest()}"
    obstore.put(blobs._objects, path, b"hellO")
    with pytest.raises(BlobCorrupt):
        await blobs.get("packages", A)
    with pytest.raises(BlobCorrupt):
        await blobs.fetch("packages", A, tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
    await blobs.put("packages", A, b"hello")
    assert await blobs.get("packages", A) == b"hello"


def _send(bucket: Bucket) -> None:
    asyncio.run(Blobs.s3(bucket).put("packages", A, PACKAGE))


async def test_an_upload_whose_process_is_killed_leaves_nothing_that_is_taken_for_whole(
    s3_server: S3Server, bucket: Bucket, blobs: Blobs, link: FaultyLink
) -> None:
    link.silent_after = PART
    sender = multiprocessing.get_context("spawn").Process(target=_send, args=(bucket,))
    sender.start()
    deadline = time.monotonic() + PATIENT
    while not link.silent:
        assert time.monotonic() < deadline
        assert sender.is_alive()
        await asyncio.sleep(0.001)
    sender.kill()
    sender.join()
    link.silent = False
    assert not await blobs.exists("packages", A)
    assert await blobs.list("packages") == []
    await blobs.put("packages", A, PACKAGE)
    assert await blobs.get("packages", A) == PACKAGE
