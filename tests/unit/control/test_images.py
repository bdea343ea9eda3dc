"""Images, as the management API has them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import oci
from tests.conftest import require
from tests.oci import Entry, Layout, archive, layer
from tests.unit.control.conftest import Platform, assert_problem, running

pytestmark = pytest.mark.anyio
STATUS = """Package: libc6
Status: install ok installed
Version: 2.36

Package: gone
Status: deinstall ok config-files
"""
SCANNER = """#!/bin/sh
# A stand-in for trivy: it says what trivy says of one package, in its format.
test "$1" = rootfs && test -d "$5/var" || exit 3
echo '{"Results": [{"Vulnerabilities": [{"VulnerabilityID": "CVE-1", "PkgName": "libc6", "InstalledVersion": "2.36",
"FixedVersion": "2.37", "Severity": "HIGH"}]}, {"Target": "nothing"}]}'
"""


def image(tmp_path: Path, text: str = "hello") -> bytes:
    files = Layout(
        [layer(Entry("hello", text), Entry("var/lib/dpkg/status", STATUS))], {"Cmd": ["/hello"]}
    ).files()
    return archive(tmp_path / "image.tar", files).read_bytes()


async def test_an_image_is_imported_listed_and_removed(platform: Platform, tmp_path: Path):
    made = await platform.client.post("/images?name=shop", content=image(tmp_path))

    assert made.status_code == 201, made.text
    listed = (await platform.client.get("/images")).json()
    assert listed == [made.json()]
    assert listed[0]["name"] == "shop"
    assert listed[0]["config"]["command"] == ["/hello"]
    assert listed[0]["used_by"] == []

    assert (await platform.client.delete("/images/shop")).status_code == 204
    assert (await platform.client.get("/images")).json() == []
    assert os.listdir(platform.control.uploads) == []


async def test_an_archive_that_is_none_is_refused_and_leaves_nothing(platform: Platform):
    answer = await platform.client.post("/images?name=shop", content=b"nothing")

    problem = assert_problem(answer, 422, "invalid")
    assert problem["field"] == "image"
    assert "docker save" in problem["detail"]
    assert os.listdir(platform.control.uploads) == []
    assert (await platform.client.get("/images")).json() == []


@pytest.mark.parametrize("name", ["", "Shop", "../shop", "a/b"])
async def test_a_name_that_is_none_is_refused(platform: Platform, name: str):
    answer = await platform.client.post("/images", params={"name": name}, content=b"")

    assert assert_problem(answer, 422, "invalid")["field"] == "name"


async def test_what_is_not_there_is_neither_removed_nor_scanned(platform: Platform):
    assert_problem(await platform.client.delete("/images/shop"), 404, "not_found")
    assert_problem(await platform.client.post("/images/shop/scan"), 404, "not_found")


async def test_the_base_image_is_not_removed(tmp_path: Path):
    async with running(Platform(tmp_path, base_image="base")) as platform:
        await platform.client.post("/images?name=base", content=image(tmp_path))

        problem = assert_problem(await platform.client.delete("/images/base"), 409, "conflict")

    assert "system.base_image" in problem["detail"]


@pytest.mark.root
async def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", tmp_path / "data"], check=True)
    try:
        async with running(Platform(tmp_path)) as platform:
            content = image(tmp_path, os.urandom(1_100_000).hex())
            too_large_to_send = await platform.client.post("/images?name=shop", content=content * 2)
            too_large_to_keep = await platform.client.post("/images?name=shop", content=content)

            for answer in (too_large_to_send, too_large_to_keep):
                assert "the disk is full" in assert_problem(answer, 503, "unavailable")["detail"]
            assert os.listdir(platform.control.uploads) == []
            assert (await platform.client.get("/images")).json() == []
    finally:
        subprocess.run(["umount", tmp_path / "data"], check=True)


async def test_a_scan_lists_packages_and_says_that_there_is_no_scanner(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    await platform.client.post("/images?name=shop", content=image(tmp_path))

    found = (await platform.client.post("/images/shop/scan")).json()

    assert found["packages"] == [{"name": "libc6", "version": "2.36", "kind": "dpkg"}]
    assert (found["scanner"], found["vulnerabilities"]) == (None, None)
    assert "install trivy or grype" in found["notes"][0]


async def test_a_scanner_says_what_is_known(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scanner(monkeypatch, tmp_path, SCANNER)
    await platform.client.post("/images?name=shop", content=image(tmp_path))

    found = (await platform.client.post("/images/shop/scan")).json()

    assert found["scanner"] == "trivy"
    assert found["vulnerabilities"] == [
        {"id": "CVE-1", "severity": "high", "package": "libc6", "version": "2.36", "fixed": "2.37"}
    ]


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\necho no database >&2; exit 1\n", "#!/bin/sh\necho no database\n"]
)
async def test_a_scanner_that_fails_is_no_good_news(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
):
    scanner(monkeypatch, tmp_path, script)
    await platform.client.post("/images?name=shop", content=image(tmp_path))

    found = (await platform.client.post("/images/shop/scan")).json()

    assert (found["scanner"], found["vulnerabilities"]) == (None, None)
    assert found["notes"][0].startswith("trivy could not scan it")
    assert len(found["packages"]) == 1


async def test_a_link_of_an_image_lends_no_list_of_this_machine(platform: Platform, tmp_path: Path):
    files = Layout([layer(oci.link("var", "../../../../var"), oci.link("lib", "/lib"))]).files()
    content = archive(tmp_path / "image.tar", files).read_bytes()
    await platform.client.post("/images?name=shop", content=content)

    assert (await platform.client.post("/images/shop/scan")).json()["packages"] == []


async def test_roots_of_runtimes_that_cannot_be_built_say_why(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "/nonexistent")

    answer = await platform.client.post("/images/debian/build", json={"runtimes": ["python"]})

    lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [line["failed"] for line in lines][-1]
    assert "apt" in lines[-1]["message"]
    unknown = await platform.client.post("/images/debian/build", json={"runtimes": ["cobol"]})
    assert "no runtime 'cobol'" in assert_problem(unknown, 422, "invalid")["detail"]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_roots_are_built_and_it_is_said_how_it_goes(platform: Platform):
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")

    answer = await platform.client.post("/images/debian/build", json={"runtimes": ["http"]})

    lines = [
        json.loads(line[6:])["message"] for line in answer.text.splitlines() if line.startswith("data: ")
    ]
    assert lines[0].startswith("building debian-http from Debian ")
    assert lines[-1].startswith("debian-http is ready")
    assert [each["name"] for each in (await platform.client.get("/images")).json()] == ["debian-http"]


def scanner(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Puts a stand-in for a scanner into ``PATH``."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "trivy").write_text(script)
    (programs / "trivy").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
