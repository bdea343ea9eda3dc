"""Packages that nothing needs are deleted; those of a deploy under way are not."""

import asyncio

import pytest

from martlet.storage.blobs import Blobs
from tests.s3 import CREDENTIALS
from tests.unit.control.conftest import HANDLER, Platform, running

pytestmark = pytest.mark.anyio


async def sweep(platform) -> None:
    await platform.control.garbage.close()
    platform.control.garbage.sweep_soon()
    await platform.control.garbage._sweep


async def test_the_package_of_a_deploy_under_way_stays(platform):
    lane = platform.lanes[0]
    lane.hold.clear()
    making = asyncio.create_task(platform.create())
    await lane.loading.wait()
    await sweep(platform)
    (digest,) = await platform.blobs.list("packages")
    lane.hold.set()
    assert (await making)["code"] == digest
    await sweep(platform)
    assert await platform.blobs.exists("packages", digest)


async def test_the_package_of_a_deploy_that_failed_goes(platform, client):
    platform.lanes[0].refuse = {"status": 502, "code": "function_load_failed", "detail": "no"}
    await client.post("/functions", json={"name": "hello", "code": HANDLER})
    await sweep(platform)
    assert await platform.blobs.list("packages") == []


async def test_what_an_earlier_life_left_goes_at_the_start(platform):
    await platform.create()
    await platform.blobs.put("packages", "4" * 64, b"left")
    await platform.stop()
    await platform.start()
    await platform.control.garbage._sweep
    assert len(await platform.blobs.list("packages")) == 1
    assert (await platform.client.get("/functions/hello")).status_code == 200


async def test_a_package_that_another_deploy_claims_again_stays(platform, client):
    made = await platform.create("one")
    lane = platform.lanes[0]
    lane.hold.clear()
    lane.loading.clear()
    making = asyncio.create_task(platform.create("two"))
    await lane.loading.wait()
    await client.delete("/functions/one")
    await sweep(platform)
    lane.hold.set()
    assert (await making)["code"] == made["code"]
    assert await platform.blobs.exists("packages", made["code"])


async def test_a_bucket_is_swept_as_a_folder_is(tmp_path, s3_server, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    platform = Platform(tmp_path)
    platform.blobs = Blobs.s3(s3_server.bucket("garbage"))
    async with running(platform):
        kept, gone = await platform.create("one"), await platform.create("two", HANDLER + "# other\n")
        await platform.blobs.put("uploads", "4" * 64, b"left")
        assert sorted(await platform.blobs.list("packages")) == sorted([kept["code"], gone["code"]])
        await platform.client.delete("/functions/two")
        await sweep(platform)
        assert await platform.blobs.list("packages") == [kept["code"]]
        assert await platform.blobs.list("uploads") == []
