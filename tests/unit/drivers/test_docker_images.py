"""Functions that are images, in containers of Docker Engine and podman."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from martlet.drivers.driver import Handle, LoadFailed
from martlet.errors import Conflict
from martlet.http.fetch import fetch
from martlet.images.image import Image
from martlet.images.oci import import_image
from martlet.images.store import Images
from martlet.model import MiB
from tests.compiled import server
from tests.container_engines import docker_service, podman_service
from tests.driver_rigs import SECONDS, Rig, docker_rig
from tests.oci import Entry, Layout, archive, folder, layer, link

pytestmark = [pytest.mark.anyio, pytest.mark.root]
SERVICES = [pytest.param(docker_service, id="docker"), pytest.param(podman_service, id="podman")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return server(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The loop of the drivers that tests share."""
    return "asyncio"


@pytest.fixture(scope="module", params=SERVICES)
async def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    path = tmp_path_factory.mktemp("rig")
    async with docker_rig(path, request.param, images=path / "images") as rig:
        yield rig


@pytest.fixture
def images(rig: Rig) -> Images:
    return Images(rig.folder / "images")


def imported(images: Images, work: Path, entries: list[Entry], **config: object) -> Image:
    files = Layout([layer(*entries)], config).files()
    return import_image(images, "shop", archive(work / "image.tar", files), "a test", 64 * MiB)


async def start(rig: Rig, image: Image) -> Handle:
    spec = rig.spec(f"cell-{image.digest[:8]}")
    handle = await rig.driver.start(replace(spec, runtime="http", image=image.reference))
    await rig.specialise(handle, "echo", runtime="http", memory="64Mi")
    return handle


async def ask(handle: Handle, path: str) -> dict[str, str]:
    """Returns the lines of an answer, by what stands before the first colon or equals sign."""
    status, body = await fetch(handle.socket, "GET", path, timeout=SECONDS)
    assert status == 200
    lines = (line.replace("=", ":", 1) for line in body.decode().splitlines())
    return {name: said.strip() for name, _, said in (line.partition(":") for line in lines)}


async def copies(rig: Rig, image: Image) -> list[str]:
    engine = await rig.driver._service.reach()  # type: ignore[attr-defined]
    return [name for name in await engine.images() if image.digest in name]


async def test_an_image_is_confined_like_any_function_and_its_copy_goes_with_it(
    rig: Rig, images: Images, tmp_path: Path, program: bytes
):
    own = [Entry("server", program, mode=0o4755), folder("function"), link("dependencies", "/etc")]
    image = imported(images, tmp_path, own, Entrypoint=["/server"], Env=["BY=image", "LD_PRELOAD=/server"])

    handle = await start(rig, image)

    power = await ask(handle, "/power")
    assert power["uid"] == str(handle.state["identity"])
    assert {int(said, 16) for name, said in power.items() if name.startswith("Cap")} == {0}
    assert (power["Seccomp"], power["NoNewPrivs"]) == ("2", "1")
    assert (power["became root"], power["made a namespace"]) == ("0", "0")
    wrote = await ask(handle, "/write")
    assert [place for place, how in wrote.items() if how == "written"] == ["/tmp"]
    variables = await ask(handle, "/variables")
    assert (variables["BY"], variables["PORT"], variables["folder"]) == ("image", "3000", "/")
    with pytest.raises(Conflict):
        images.remove("shop")
    await rig.driver.destroy(handle)
    assert len(await copies(rig, image)) == 1, "the next start has no need to wait for it"
    images.remove("shop")
    await rig.driver.sweep()
    assert await copies(rig, image) == []


async def test_an_image_that_does_not_serve_says_why(rig: Rig, images: Images, tmp_path: Path):
    image = imported(images, tmp_path, [folder("etc")], Entrypoint=["/absent"])

    with pytest.raises(LoadFailed, match=r"No such file or directory: '/absent'\. It must be in the image"):
        await start(rig, image)
