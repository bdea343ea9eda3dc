"""Images on a real platform: sent through the gateway, and as the root of functions in containers."""

import os
import shutil
from pathlib import Path

import httpx2
import pytest

from tests.conftest import require
from tests.oci import Entry, Layout, archive, layer

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(600)]
SEEN = """import os, sys
def handle(request): return {'python': sys.executable, 'docs': os.path.exists('/usr/share/doc')}
"""


def test_functions_run_in_a_debian_that_was_built_of_the_machines_mirrors(make_platform):
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")
    require(shutil.which("crun"), "crun (apt-get install crun)")
    platform = make_platform(lanes=1, base_image="debian", container_runtime="crun")
    platform.start()
    try:
        admin = {"authorization": f"Bearer {platform.admin_key}"}
        with httpx2.Client(base_url=platform.url, headers=admin, timeout=300) as client:
            said = client.post("/images/debian/build", json={"runtimes": ["python"]}).text
            assert "is ready" in said
            function = {"name": "seen", "code": SEEN, "config": {"execution_mode": "container"}}
            deployed = client.post("/functions", json=function)
            assert deployed.status_code == 201, deployed.text
            answer = httpx2.get(
                f"{platform.url}/invoke/seen", headers={"authorization": f"Bearer {platform.key}"}, timeout=60
            ).json()
            assert answer["python"].startswith("/usr/bin/python3.")
            assert not answer["docs"]
            name = client.get("/images").json()[0]["name"]
            refused = client.delete(f"/images/{name}")
            assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
            assert "lane-0" in refused.json()["detail"]
    finally:
        platform.stop()


def test_a_large_image_is_sent_by_an_administrator_only(make_platform, tmp_path: Path):
    platform = make_platform(lanes=1)
    platform.start()
    path = archive(tmp_path / "image.tar", Layout([layer(Entry("random", os.urandom(30_000_000)))]).files())
    try:
        with httpx2.Client(base_url=platform.url, timeout=60) as client:
            client.headers["authorization"] = f"Bearer {platform.key}"
            assert client.post("/images?name=large", content=path.read_bytes()).status_code == 403
            assert client.get("/images").json() == []
            client.headers["authorization"] = f"Bearer {platform.admin_key}"
            made = client.post("/images?name=large", content=path.read_bytes())
            assert (made.status_code, made.json()["size"]) == (201, 30_000_000)
            assert client.delete("/images/large").status_code == 204
    finally:
        platform.stop()
