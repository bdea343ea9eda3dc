"""Images on a real platform: sent through the gateway, and as the root of functions in containers."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from tests.system.holdings import nothing_left
from tests.system.test_adoption import kill_lane

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(600)]
SEEN = """import os, sys
def handle(request): return {'python': sys.executable, 'docs': os.path.exists('/usr/share/doc')}
"""


SMALL, ENOUGH = "20m", "2g"


@pytest.fixture(scope="module")
def debian(make_platform):
    """A platform whose functions run in Debian roots, with little room for them in the beginning."""
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")
    require(shutil.which("crun"), "crun (apt-get install crun)")
    platform = make_platform(
        lanes=1,
        min_cells=0,
        max_cells=0,
        base_image="debian",
        container_runtime="crun",
        disable_microvm=True,
    )
    mount = f'mount -t tmpfs -o size={SMALL} images "$0" && exec "$@"'
    platform.remember_versions()
    images = platform.data / "images"
    images.mkdir(mode=0o700, parents=True)
    platform.wrapper = ("unshare", "--mount", "sh", "-c", mount, str(images))
    platform.start()
    platform.admin.timeout = 300
    yield platform
    platform.stop()
    nothing_left(platform)


def deploy(platform, name="seen", code=SEEN):
    function = {"name": name, "code": code, "config": {"execution_mode": "container", "idle_ttl": 600}}
    return platform.admin.post("/functions", json=function)


def inside(platform, *command):
    """Runs a command among the mounts of a platform."""
    subprocess.run(["nsenter", f"--target={platform.process.pid}", "--mount", *command], check=True)


def images_of(platform):
    """Returns the folder of a platform's images as that sees it."""
    return Path(f"/proc/{platform.process.pid}/root{platform.data}/images")


def test_a_disk_that_is_full_while_a_root_is_built_is_said_and_leaves_nothing(debian):
    answer = deploy(debian)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable"), answer.text
    assert "the disk is full" in answer.json()["detail"]
    assert not [path for path in images_of(debian).iterdir() if path.name.startswith((".work", ".gone"))]
    assert debian.admin.get("/images").json() == []


def test_a_deploy_builds_the_root_that_it_needs_and_says_how_it_goes(debian):
    inside(debian, "mount", "-o", f"remount,size={ENOUGH}", str(debian.data / "images"))

    deployed = deploy(debian)

    assert deployed.status_code == 201, deployed.text
    said = debian.admin.get(f"/builds/{deployed.json()['build']}/logs").text
    log = [json.loads(line[6:])["message"] for line in said.splitlines() if line.startswith('data: {"time')]
    assert any(line.startswith("building debian-python3.") for line in log)
    assert log.index(next(line for line in log if line.startswith("built debian-"))) < log.index(
        "loading seen@1"
    )
    seen = debian.invoke("seen").json()
    assert seen["python"].startswith("/usr/bin/python3.")
    assert not seen["docs"]
    again = deploy(debian, "again")
    assert again.status_code == 201
    assert "building" not in again.text


def test_an_image_in_use_is_not_removed_though_its_lane_is_killed(debian):
    name = debian.admin.get("/images").json()[0]["name"]
    for _ in range(2):
        refused = debian.admin.delete(f"/images/{name}")
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "lane-0" in refused.json()["detail"]
        kill_lane(debian)


def test_an_image_that_is_deleted_by_hand_is_said_to_be_gone_until_it_is_back(debian, make_platform):
    """It is put aside and put back: to build it anew takes no other way than the first time."""
    (digest,) = [path for path in images_of(debian).iterdir() if len(path.name) == 64]
    name = debian.admin.get("/images").json()[0]["name"]
    platform = make_platform(
        lanes=1, min_cells=0, max_cells=0, base_image=name, container_runtime="crun", disable_microvm=True
    )
    platform.remember_versions()
    images = platform.data / "images"
    (images / "names").mkdir(mode=0o700, parents=True)
    subprocess.run(["cp", "-a", digest, images], check=True)
    (images / "names" / name).write_text(digest.name)
    platform.start()
    try:
        platform.deploy("stays", SEEN, execution_mode="container")
        before = platform.invoke("stays").json()
        aside = platform.data / "aside"
        (images / digest.name).rename(aside)

        refused = deploy(platform)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), refused.text
        assert f"import it with `martlet images import {name} FILE`" in refused.json()["detail"]
        assert platform.invoke("stays").json() == before
        kill_lane(platform)
        aside.rename(images / digest.name)
        assert deploy(platform).status_code == 201
        assert platform.invoke("seen").json() == before

        shutil.copytree(images / digest.name, aside, symlinks=True)
        shutil.rmtree(images / digest.name)
        refused = deploy(platform, "third")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), refused.text
        aside.rename(images / digest.name)
        assert deploy(platform, "third").status_code == 201
        assert platform.invoke("third").json() == before
    finally:
        platform.stop()
    nothing_left(platform)
