"""A platform whose packages are kept in a bucket."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.faulty_link import FaultyLink
from tests.ports import free_port
from tests.s3 import KEY, SECRET, S3Server
from tests.system.conftest import Platform

HELLO = "def handle(request):\n    return {'name': '%s'}\n"


@pytest.fixture(scope="module")
def link(s3_server: S3Server) -> Iterator[FaultyLink]:
    link = FaultyLink(s3_server.port)
    yield link
    link.close()


@pytest.fixture(scope="module")
def platform(
    make_platform: Callable[..., Platform],
    s3_server: S3Server,
    link: FaultyLink,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    credentials = tmp_path_factory.mktemp("keys") / "credentials"
    credentials.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    bucket = replace(s3_server.bucket("platform", link.port), credentials=credentials)
    small = {"lanes": 1, "min_cells": 1, "max_cells": 1, "disable_container": True, "disable_microvm": True}
    platform = make_platform(**small, blobs=str(bucket))
    platform.start()
    return platform


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_platform_lives_on_a_bucket_and_without_it(
    platform: Platform, link: FaultyLink, s3_server: S3Server
) -> None:
    for name in ("hello", "other"):
        platform.deploy(name, HELLO % name)
        assert platform.invoke(name).json() == {"name": name}
    assert not (platform.data / "blobs").exists()

    platform.stop()
    shutil.rmtree(platform.data / "packages")
    platform.start()
    assert platform.invoke("hello").json() == {"name": "hello"}

    link.server_port = free_port()
    link.cut()
    _serves_what_it_has(platform)
    platform.stop()
    platform.start()
    assert platform.invoke("hello").json() == {"name": "hello"}

    link.server_port = s3_server.port
    assert platform.invoke("other").json() == {"name": "other"}
    platform.deploy("new", HELLO % "new")
    assert platform.invoke("new").json() == {"name": "new"}
    assert SECRET not in platform.log() + platform.config.read_text()


def _serves_what_it_has(platform: Platform) -> None:
    """While the bucket is out of reach."""
    assert platform.invoke("hello").json() == {"name": "hello"}
    for instance in platform.instances("hello"):
        assert platform.admin.delete(f"/instances/{instance['id']}").status_code == 204
    assert platform.invoke("hello").json() == {"name": "hello"}
    with ThreadPoolExecutor() as caller:  # both wait until the bucket counts as out of reach
        asked = caller.submit(platform.invoke, "other")
        refused = platform.client.post("/functions", json={"name": "new", "code": HELLO % "new"})
        cold = asked.result()
    assert (cold.status_code, cold.json()["code"]) == (503, "unavailable")
    assert "the code of other@1 cannot be fetched" in cold.json()["detail"]
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "storage is out of reach" in refused.json()["detail"]
    assert "package_not_fetched" in platform.log()
