"""``martlet images``, against a fake platform."""

from pathlib import Path

import pytest
from fake_platform import events, problem

from tests.oci import Entry, Layout, archive, layer, spread

IMAGE = {
    "name": "shop",
    "digest": "3f" * 32,
    "source": "an archive",
    "size": 3 * 1024**2,
    "created": 0,
    "config": {},
    "used_by": ["shop@3"],
}
FILES = Layout([layer(Entry("hello", "world"))]).files()


def test_images_are_listed_with_who_needs_them(martlet, platform):
    platform.answer("GET", "/images", [IMAGE])

    table = martlet("images", "list")

    assert table.code == 0
    assert all(word in table.out for word in ("shop", "3f3f3f3f3f3f", "3.0 MiB", "shop@3"))
    assert martlet("images", "list", "--json").json == [IMAGE]


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_an_archive_or_a_folder_is_sent(martlet, platform, tmp_path: Path, form: str):
    platform.answer("POST", "/images", IMAGE)
    path = archive(tmp_path / "image.tar", FILES) if form == "archive" else spread(tmp_path / "image", FILES)

    result = martlet("images", "import", "shop", path)

    assert result.code == 0, result.err
    sent = platform.seen[-1]
    assert sent.path == "/images?name=shop"
    assert b"oci-layout" in sent.body
    assert "shop is 3f3f3f3f3f3f, 3.0 MiB" in result.err


@pytest.mark.parametrize("source", ["nothing.tar", "."])
def test_what_is_no_image_is_not_sent(martlet, platform, tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)

    result = martlet("images", "import", "shop", source)

    assert result.code == 2
    assert "neither an archive nor the folder of an OCI image" in result.err
    assert platform.seen == []


def test_an_engine_that_is_not_there_is_said(martlet, platform, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    result = martlet("images", "import", "shop", "docker://shop:1")

    assert result.code == 2
    assert "there is no docker on this machine" in result.err


def test_a_build_says_how_it_goes_and_fails_where_a_root_does(martlet, platform):
    lines = [{"message": "building", "failed": False}, {"message": "bun: no Debian package", "failed": True}]
    platform.answers["POST", "/images/debian/build"] = events(*lines)

    result = martlet("images", "build", "python", "bun")

    assert result.code == 1
    assert "building" in result.err
    assert "bun: no Debian package" in result.err
    assert platform.seen[-1].json == {"runtimes": ["python", "bun"]}


def test_an_image_that_is_in_use_is_not_removed(martlet, platform):
    platform.answers["DELETE", "/images/shop"] = problem(409, "conflict", "in use, by shop@3")

    result = martlet("images", "remove", "shop")

    assert result.code == 1
    assert "in use, by shop@3" in result.err


@pytest.mark.parametrize(("found", "code"), [(None, 0), ([], 0), (["CVE-1"], 1)])
def test_a_scan_lists_packages_and_fails_where_something_is_wrong(martlet, platform, found, code):
    weak = [
        {"id": each, "severity": "high", "package": "libc6", "version": "2.36", "fixed": None}
        for each in found or []
    ]
    scan = {
        "packages": [{"name": "libc6", "version": "2.36", "kind": "dpkg"}],
        "scanner": None if found is None else "trivy",
        "vulnerabilities": None if found is None else weak,
        "notes": ["there is no scanner"] if found is None else [],
    }
    platform.answer("POST", "/images/shop/scan", scan)

    result = martlet("images", "scan", "shop")

    assert result.code == code
    assert "libc6" in result.out
    assert ("There is no scanner." in result.err) is (found is None)
    assert ("CVE-1" in result.out) is bool(found)
