"""Debian roots made of this machine's own mirrors: what is in them, and what becomes of builds that are cut off."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from martlet.drivers.driver import DriverError
from martlet.drivers.images import ImageRoots
from martlet.drivers.roots import DOOR
from martlet.errors import Invalid, Unavailable
from martlet.images import debian
from martlet.images.debian import debian_root, recipe_of
from martlet.images.image import Contents, Image
from martlet.images.store import Images
from martlet.runtimes import Catalogue
from martlet.runtimes.description import read_description
from martlet.runtimes.runtime import SHIPPED
from tests.conftest import require

PYTHON = Catalogue.load().resolve("python")
HTTP = Catalogue.load().resolve("http")
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]
BUILD = """
import sys
from pathlib import Path
from martlet.images.debian import debian_root
from martlet.images.store import Images
from martlet.runtimes import Catalogue
from martlet.runtimes.description import read_description
from martlet.runtimes.runtime import SHIPPED
image = debian_root(Images(Path(sys.argv[1])), Catalogue.load().resolve("python"), lambda line: print(line, flush=True))
print(image.digest)
"""


@pytest.fixture(autouse=True)
def _mmdebstrap() -> None:
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Images, list[str]]]:
    """A store with a root for Python, which two lanes have asked for at once, and what they said."""
    require(shutil.which("mmdebstrap"), "mmdebstrap (apt-get install mmdebstrap)")
    require(os.geteuid() == 0, "root, to unpack packages")
    folder = tmp_path_factory.mktemp("images")
    lanes = [begin(folder), begin(folder)]
    said = [lane.communicate()[0] for lane in lanes]
    assert [lane.returncode for lane in lanes] == [0, 0], said
    yield Images(folder), said
    shutil.rmtree(folder)


def begin(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_of_several_lanes_one_builds_and_all_have_the_root(built: tuple[Images, list[str]]):
    images, said = built

    assert "".join(said).count("building debian-python") == 1
    assert len({words.split()[-1] for words in said}) == 1
    assert [image.name for image in images.list()] == [f"debian-{PYTHON.name}"]


def test_what_was_built_is_taken_until_what_it_is_made_from_changes(
    built: tuple[Images, list[str]], tmp_path: Path
):
    images, _ = built
    said: list[str] = []
    before = debian_root(images, PYTHON, said.append)
    assert said == []

    shutil.copytree("/etc/apt", tmp_path / "apt", ignore=shutil.ignore_patterns("trusted*", "auth*"))
    shutil.copy("/etc/os-release", tmp_path)
    sources = next(path for path in (tmp_path / "apt").rglob("*") if path.suffix in (".list", ".sources"))
    sources.write_text(sources.read_text() + "\n# changed\n")

    assert recipe_of(PYTHON, tmp_path).inputs != before.inputs == recipe_of(PYTHON).inputs


def test_a_root_has_what_a_container_needs_and_nothing_that_gives_power(built: tuple[Images, list[str]]):
    root = the(built).root

    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert list(root.glob("usr/lib/python3.*/json/__pycache__/decoder.*.pyc"))
    assert not (root / "usr/share/doc").exists()
    assert (root / "bin/sh").exists()
    kinds = [os.lstat(path) for path in root.rglob("*")]
    assert not [
        kind for kind in kinds if kind.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(kind.st_mode)
    ]
    assert not [kind for kind in kinds if stat.S_ISCHR(kind.st_mode) or stat.S_ISBLK(kind.st_mode)]
    assert "\nPackage: python3\n" in (root / "var/lib/dpkg/status").read_text()


@pytest.mark.anyio
async def test_the_driver_is_told_where_the_roots_own_programs_are(built: tuple[Images, list[str]]):
    images, _ = built
    roots = ImageRoots(images, "debian", "lane-0", 1 << 33, print)

    python, again = await roots.of(PYTHON), await roots.of(PYTHON)

    assert python is again
    assert python.path == the(built).root
    assert python.runtime.name == PYTHON.name
    assert python.runtime.interpreter == python.runtime.program
    assert str(python.runtime.interpreter).startswith("/usr/bin/python3.")
    assert (python.path / DOOR.lstrip("/")).is_dir()
    roots.close()


@pytest.mark.anyio
async def test_an_image_by_its_name_is_a_root_for_what_it_has(built: tuple[Images, list[str]]):
    images, _ = built
    roots = ImageRoots(images, the(built).name, "lane-0", 1 << 33, print)

    assert (await roots.of(HTTP)).path == the(built).root
    with pytest.raises(DriverError, match=r"no root for perl.*it has no perl, which Perl takes"):
        await roots.of(Catalogue.load().resolve("python").model_copy(update=as_perl()))
    roots.close()


@pytest.mark.anyio
async def test_a_root_of_another_version_is_refused_rather_than_used(built: tuple[Images, list[str]]):
    images, _ = built
    roots = ImageRoots(images, the(built).name, "lane-0", 1 << 33, print)

    with pytest.raises(
        DriverError, match=r"it has Python 3\.\d+\.\d+, and the function asks for python3\.99"
    ):
        await roots.of(PYTHON.model_copy(update={"name": "python3.99"}))
    roots.close()


@pytest.mark.anyio
async def test_an_image_that_lanes_use_is_not_removed(built: tuple[Images, list[str]]):
    images, _ = built
    roots = ImageRoots(images, the(built).name, "lane-7", 1 << 33, print)
    await roots.of(HTTP)

    with pytest.raises(Exception, match="in use, by lane-7"):
        images.remove(the(built).name)
    roots.close()


def test_a_build_that_is_killed_leaves_nothing_running_nor_mounted_nor_half_done(tmp_path: Path):
    build = begin(tmp_path)
    assert build.stdout is not None
    for line in build.stdout:
        if line.startswith("downloading"):
            break

    build.send_signal(signal.SIGKILL)
    build.communicate()

    while processes_about(tmp_path):
        pass  # the kernel ends them at once, in its own time
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert Images(tmp_path).list() == []
    assert [name for name in os.listdir(tmp_path) if not name.startswith((".lock", ".build"))] == ["names"]


def test_a_disk_that_is_full_is_a_clear_error_and_leaves_nothing(tmp_path: Path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", tmp_path], check=True)
    try:
        with pytest.raises(Unavailable, match="the disk is full"):
            debian_root(Images(tmp_path), PYTHON, print)
        assert [name for name in os.listdir(tmp_path) if not name.startswith((".lock", ".build"))] == [
            "names"
        ]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("size", ["8m", "64m"])
def test_a_build_that_is_stuck_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str):
    (tmp_path / "bin").mkdir()
    stuck = tmp_path / "bin/mmdebstrap"
    stuck.write_text("#!/bin/sh\necho I: waiting for what will not come\nexec sleep 1000\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "_STUCK_SECONDS", 3)
    monkeypatch.setattr(debian, "_STUCK_AND_FULL_SECONDS", 0)
    images = tmp_path / "images"
    images.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", images], check=True)
    try:
        with pytest.raises(Unavailable, match="the disk is full" if size == "8m" else "waiting for what"):
            debian_root(Images(images), PYTHON, print)
    finally:
        subprocess.run(["umount", images], check=True)


def test_a_machine_without_sources_is_told_what_else_to_take(tmp_path: Path):
    with pytest.raises(Invalid, match="take host") as caught:
        recipe_of(PYTHON, tmp_path)

    assert caught.value.field == "system.base_image"


def test_a_runtime_that_no_package_has_is_refused():
    bun = read_description(SHIPPED / "bun/runtime.toml")
    with pytest.raises(Invalid, match="no Debian package has Bun"):
        recipe_of(HTTP.model_copy(update={"description": bun}))


@pytest.mark.anyio
async def test_an_archive_is_imported_once_as_it_is(tmp_path: Path):
    images = Images(tmp_path / "images")
    said: list[str] = []
    (tmp_path / "wrong.tar").write_bytes(b"nothing")
    roots = ImageRoots(images, str(tmp_path / "wrong.tar"), "lane-0", 1 << 33, said.append)

    with pytest.raises(DriverError, match="it is no archive of an image"):
        await roots.of(HTTP)


@pytest.mark.anyio
async def test_links_of_an_image_are_no_way_out_when_it_is_furnished(tmp_path: Path):
    (tmp_path / "outside").mkdir()
    images = Images(tmp_path / "images")
    with images.work() as work:
        (work / "root").mkdir()
        (work / "root/etc").symlink_to(tmp_path / "outside")
        (work / "root/.code").symlink_to(tmp_path / "outside")
        (work / "root/function").symlink_to("/etc")
        image: Image = images.add("evil", Contents(digest="a" * 64, source="a test"), work)

    with pytest.raises(DriverError, match=r"it has no Python 3\.11"):
        await ImageRoots(images, "evil", "lane-0", 1 << 33, print).of(HTTP)

    assert os.listdir(tmp_path / "outside") == []
    assert (image.root / "etc").is_dir()
    assert os.readlink(image.root / "function") == ".code/function"


def the(built: tuple[Images, list[str]]) -> Image:
    return built[0].list()[0]


def as_perl() -> dict[str, object]:
    return {"name": "perl5.36", "description": read_description(SHIPPED / "perl/runtime.toml")}


def processes_about(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            pass
    return found
