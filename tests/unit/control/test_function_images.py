"""Functions that are images: what their configuration must say, and which image they keep."""

import pytest

from martlet.images.image import Contents
from martlet.images.store import Images
from tests.unit.control.conftest import HANDLER, Platform, assert_problem

pytestmark = pytest.mark.anyio


@pytest.fixture
def images(platform: Platform) -> Images:
    return platform.control.images


@pytest.fixture(autouse=True)
def _containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are told to have containers, before the platform starts."""


@pytest.fixture
def platform(_containers: None, platform: Platform) -> Platform:
    return platform


def keep(images: Images, name: str, digit: str) -> str:
    with images.work() as work:
        (work / "root").mkdir()
        return images.add(name, Contents(digest=digit * 64, source="a test"), work).reference


def config(**keys: object) -> dict[str, object]:
    return {"execution_mode": "container", "image": "shop", **keys}


async def test_a_function_that_is_an_image_needs_no_code(platform: Platform, images: Images):
    reference = keep(images, "shop", "a")

    made = await platform.client.post("/functions", json={"name": "shop", "config": config()})

    assert made.status_code == 201, made.text
    assert made.json()["config"]["image"] == reference == f"shop@{'a' * 64}"
    assert made.json()["config"]["runtime"] == "http"


async def test_a_revision_keeps_its_image_until_the_function_is_deployed_with_it_anew(
    platform: Platform, images: Images
):
    first = keep(images, "shop", "a")
    await platform.client.post("/functions", json={"name": "shop", "config": config()})
    second = keep(images, "shop", "b")

    changed = await platform.client.put("/functions/shop", json={"config": {"timeout": 3}})
    anew = await platform.client.put("/functions/shop", json={"config": {"image": "shop"}})

    assert changed.json()["config"]["image"] == first
    assert anew.json()["config"]["image"] == second
    assert anew.json()["revision"] == 3


async def test_code_may_come_with_an_image(platform: Platform, images: Images):
    keep(images, "shop", "a")
    files = {"archive": ("a.tar", tarred({"start.sh": "#!/bin/sh\nexec /server\n"}))}
    form = {"name": "shop", "config": '{"execution_mode": "container", "image": "shop"}'}

    made = await platform.client.post("/functions", data=form, files=files)

    assert made.status_code == 201, made.text
    assert made.json()["config"]["runtime"] == "http"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "there is no image 'shop': import it with `martlet images import shop FILE`"),
        ({"execution_mode": "process"}, "set execution_mode: container"),
        ({"runtime": "python"}, "set runtime: http"),
        ({"image": "Not A Name"}, "'Not A Name' is not a name: write that of an image"),
        ({"image": "../shop"}, "'../shop' is not a name"),
    ],
)
async def test_a_wrong_image_is_refused_with_the_field_and_what_to_do(
    platform: Platform, keys: dict[str, object], says: str
):
    document = {"name": "shop", "code": HANDLER, "config": config(**keys)}

    problem = assert_problem(await platform.client.post("/functions", json=document), 422, "invalid")

    assert problem["field"] == "config.image"
    assert says in problem["detail"]
    assert platform.lanes[0].loaded == []


async def test_a_function_without_image_needs_code_still(platform: Platform):
    answer = await platform.client.post("/functions", json={"name": "shop", "config": {}})

    assert assert_problem(answer, 422, "invalid")["field"] == "code"


def tarred(files: dict[str, str]) -> bytes:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()
