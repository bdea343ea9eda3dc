"""The images of a machine: what is kept, found, in use and removed, whoever is killed in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from martlet.errors import Conflict, NotFound, Unavailable
from martlet.images.image import Contents, ImageConfig
from martlet.images.store import Images

OF_SHOP = ImageConfig(entrypoint=("/server",), environment={"MODE": "shop"}, folder="/srv", user="app")


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images")


def keep(images: Images, name: str = "shop", text: str = "hello", config: ImageConfig = OF_SHOP):
    """Keeps an image of one file."""
    with images.work() as work:
        (work / "root").mkdir()
        (work / "root/file").write_text(text)
        return images.add(name, Contents(digest=digest(text), config=config, source="a test"), work)


def digest(text: str) -> str:
    return text.encode().hex().ljust(64, "0")


def left(images: Images) -> list[str]:
    """Returns the folders that are there besides images."""
    return [each.name for each in images.folder.iterdir() if each.name.startswith((".work", ".gone"))]


def test_an_image_is_found_by_its_name_with_all_that_is_known_of_it(images: Images):
    kept = keep(images)

    found = Images(images.folder).find("shop")

    assert found == kept
    assert (found.root / "file").read_text() == "hello"
    assert (found.config, found.size, found.source) == (OF_SHOP, 5, "a test")
    assert left(images) == []


def test_images_are_listed_by_name(images: Images):
    keep(images, "shop", "one"), keep(images, "forum", "two")

    assert [image.name for image in images.list()] == ["forum", "shop"]


@pytest.mark.parametrize("reference", ["shop", f"shop@{'0' * 64}", "../names/shop", ".shop", "", "a/b"])
def test_an_image_that_is_not_there_says_how_to_import_it(images: Images, reference: str):
    keep(images, "other")

    with pytest.raises(NotFound, match="martlet images import"):
        images.find(reference)


def test_a_name_can_become_another_images_and_the_one_before_stays_for_its_users(images: Images):
    before = keep(images, text="one")
    after = keep(images, text="two")

    assert images.find("shop").digest == after.digest
    assert (images.find(before.reference).root / "file").read_text() == "one"
    assert [image.digest for image in images.list()] == [after.digest]


def test_what_nobody_needs_any_more_is_pruned(images: Images):
    first, second, third = (keep(images, text=text) for text in ("one", "two", "three"))
    hold = images.hold(second, "lane-0")

    images.prune([])
    with pytest.raises(NotFound):
        images.find(first.reference)
    assert images.find(second.reference)
    assert images.find("shop") == third

    hold.close()
    images.prune([second.digest])
    assert images.find(second.reference)


def test_the_same_content_is_kept_once_for_all_its_names(images: Images):
    shop, forum = keep(images, "shop"), keep(images, "forum")

    assert shop.root == forum.root
    images.remove("forum")
    assert images.list() == []


def test_an_image_that_is_in_use_is_not_removed_and_the_refusal_names_the_user(images: Images):
    image = keep(images)
    hold = Images(images.folder).hold(image, "lane-0, for hello@3")

    with pytest.raises(Conflict, match=r"in use, by system\.base_image, lane-0, for hello@3"):
        images.remove("shop", lambda _: ["system.base_image"])
    assert images.find("shop") == image

    hold.close()
    images.remove("shop")
    assert images.list() == []
    assert sorted(os.listdir(images.folder)) == [".lock", "names"]


def test_an_image_that_was_removed_cannot_be_held(images: Images):
    image = keep(images)
    images.remove("shop")

    with pytest.raises(NotFound, match="removed"):
        images.hold(image, "lane-0")


def test_a_user_that_was_killed_holds_nothing(images: Images):
    image = keep(images)
    killed = elsewhere(
        images, "image = images.find('shop'); hold = images.hold(image, 'lane-0'); print('held', flush=True)"
    )
    with pytest.raises(Conflict):
        images.remove(image.name)

    kill(killed)

    images.remove(image.name)


@pytest.mark.parametrize(
    "moment",
    [
        "stop()",
        "Path.rename = stop; images.add('new', contents, work)",  # nothing has come to its place
        "os.fsync = stop; images.add('new', contents, work)",  # it has, but has no name
    ],
)
def test_whoever_is_killed_while_adding_leaves_nothing(images: Images, moment: str):
    keep(images)
    killed = elsewhere(
        images,
        "from martlet.images.image import Contents\n"
        "def stop(*_): print('stopped', flush=True); time.sleep(60)\n"
        f"contents = Contents(digest={digest('new')!r}, source='a test')\n"
        f"with images.work() as work:\n    (work / 'root').mkdir(); {moment}",
    )
    if "fsync" not in moment:  # which keeps others out
        assert left(Images(images.folder)), "others leave alone what is being worked on"

    kill(killed)

    again = Images(images.folder)
    again.prune([])
    assert left(again) == []
    assert [image.name for image in again.list()] == ["shop"]
    assert keep(again, "new", "new").name == "new"


def test_a_failure_leaves_nothing(images: Images):
    with pytest.raises(TypeError):
        keep(images, text=None)

    assert left(images) == []


@pytest.mark.root
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "small").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path / "small"], check=True)
    try:
        images = Images(tmp_path / "small/images")
        with pytest.raises(Unavailable, match=r"the disk is full.*martlet images remove"):
            keep(images, text="x" * 2_000_000)
        assert left(images) == []
        assert keep(images, text="small").size == 5
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


def elsewhere(images: Images, code: str) -> subprocess.Popen[str]:
    """Runs code in a process of its own, until it says that it has come to where it waits."""
    start = (
        f"import os, sys, time\nfrom martlet.images.store import Images\nfrom pathlib import Path\n"
        f"images = Images(Path({str(images.folder)!r}))\n{code}\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline(), "it did not come so far"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
