"""Images of an engine of this machine."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from martlet.errors import Invalid
from martlet.images.engine import import_from_engine
from martlet.images.store import Images
from tests.conftest import require
from tests.oci import Entry, layer

pytestmark = [pytest.mark.root, pytest.mark.slow]
PODMAN = ("podman", "--cgroup-manager=cgroupfs", "--events-backend=none")


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    """An image of podman, without a registry."""
    require(shutil.which("podman"), "podman (apt-get install podman)")
    name = f"localhost/martlet-test-{os.getpid()}:1"
    (tmp_path / "files.tar").write_bytes(
        layer(Entry("hello", "world"), Entry("etc/passwd", "app:x:7:7::/:\n"))
    )
    changes = ("ENTRYPOINT=/hello", "ENV=MODE=test", "USER=app", "WORKDIR=/srv")
    options = [f"--change={change}" for change in changes]
    subprocess.run([*PODMAN, "import", "-q", *options, tmp_path / "files.tar", name], check=True)
    yield name
    subprocess.run([*PODMAN, "rmi", "-f", name], check=True)


def test_an_image_of_podman_is_taken_with_what_it_says_of_its_program(image: str, tmp_path: Path):
    images = Images(tmp_path / "images")

    found = import_from_engine(images, "test", f"podman://{image}", 1 << 30)

    assert (found.root / "hello").read_text() == "world"
    assert found.config.entrypoint[-1].endswith("/hello")
    assert (found.config.environment["MODE"], found.config.user, found.config.folder) == (
        "test",
        "app",
        "/srv",
    )
    left = subprocess.run(
        [*PODMAN, "ps", "-a", "--format={{.Names}}"], capture_output=True, text=True, check=True
    )
    assert "martlet-export-" not in left.stdout


def test_an_image_that_is_too_large_leaves_nothing(image: str, tmp_path: Path):
    images = Images(tmp_path / "images")

    with pytest.raises(Invalid, match=r"system\.max_image"):
        import_from_engine(images, "test", f"podman://{image}", 100)

    assert sorted(os.listdir(images.folder)) == [".lock", "names"]
    left = subprocess.run(
        [*PODMAN, "ps", "-a", "--format={{.Names}}"], capture_output=True, text=True, check=True
    )
    assert "martlet-export-" not in left.stdout


def test_an_image_that_the_engine_has_not_is_refused_in_its_words(image: str, tmp_path: Path):
    with pytest.raises(Invalid, match=r"which says: .*image not known") as caught:
        import_from_engine(Images(tmp_path / "images"), "test", "podman://localhost/nothing-here", 1 << 30)

    assert caught.value.field == "image"


@pytest.mark.parametrize("source", ["nerdctl://x", "docker://", "docker://--all", "x"])
def test_what_names_no_image_of_an_engine_is_refused(tmp_path: Path, source: str):
    with pytest.raises(Invalid, match="write docker://NAME"):
        import_from_engine(Images(tmp_path / "images"), "test", source, 1 << 30)
