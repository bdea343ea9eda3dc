"""``/images``: roots of containers, and functions that are images. Whoever changes them needs the scope ``admin``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from martlet.control.control import Control, images_of
from martlet.control.events import event_stream, events_response
from martlet.control.functions import ARCHIVE
from martlet.control.parameters import Platform, problems
from martlet.control.upload import read_archive
from martlet.errors import BodyTooLarge, Conflict, MartletError, NotFound
from martlet.images.debian import debian_root
from martlet.images.image import Image, ImageConfig
from martlet.images.inside import Inside
from martlet.images.oci import import_image
from martlet.images.scan import ImageScan, scan
from martlet.images.store import said_when_full
from martlet.model import IMAGE_NAME, Digest, Frozen
from martlet.runtimes.runtime import Runtime

router = APIRouter(tags=["images"])

ImagePath = Annotated[str, Path(pattern=IMAGE_NAME, description="The image.")]
ImageQuery = Annotated[str, Query(pattern=IMAGE_NAME, description="What the image will be called.")]


class ImageView(Frozen):
    """An image. ``created`` is in seconds since the epoch."""

    name: str
    digest: Digest
    source: str = Field(description="Where it is from.")
    size: int = Field(description="Bytes of its files.")
    created: float
    config: ImageConfig = Field(description="What it says about its program.")
    used_by: tuple[str, ...] = Field(description="The revisions and settings that need it.")


class ImageBuild(Frozen):
    """Which roots to build."""

    runtimes: tuple[str, ...] = Field(min_length=1, max_length=100, description="Names of runtimes.")


class ImageLine(Frozen):
    """A line of what a build says; the last one of a runtime that failed has ``failed``."""

    message: str
    failed: bool = False


@router.get("/images", responses=problems())
async def list_images(platform: Platform) -> list[ImageView]:
    """Lists the images, by name."""
    functions = images_of(platform.view)
    return [_view(platform, image, functions) for image in await asyncio.to_thread(platform.images.list)]


@router.post("/images", status_code=201, responses=problems(BodyTooLarge), openapi_extra=ARCHIVE)
async def add_image(platform: Platform, request: Request, name: ImageQuery) -> ImageView:
    """Imports an image: an OCI archive, or what `docker save` writes. The name may have been another image's."""
    with said_when_full(platform.uploads):
        archive = await read_archive(request, platform.uploads)
    try:
        limit = platform.settings.system.max_image
        image = await asyncio.to_thread(
            import_image, platform.images, name, archive.path, "an archive", limit
        )
    finally:
        archive.discard()
    return _view(platform, image, images_of(platform.view))


@router.post(
    "/images/debian/build",
    response_class=Response,
    responses=problems() | events_response(ImageLine, "How it goes, until all are built."),
)
async def build_images(platform: Platform, body: ImageBuild) -> Response:
    """Builds the Debian roots of runtimes, for `base_image: debian`, and says how it goes."""
    runtimes = [platform.catalogue.resolve(name) for name in body.runtimes]
    return event_stream(_build(platform, runtimes))


@router.post("/images/{name}/scan", responses=problems(NotFound))
async def scan_image(platform: Platform, name: ImagePath) -> ImageScan:
    """Lists the packages of an image, and what is known to be wrong with them where a scanner is installed."""
    return await asyncio.to_thread(lambda: scan(platform.images.find(name)))


@router.delete("/images/{name}", status_code=204, responses=problems(NotFound, Conflict))
async def remove_image(platform: Platform, name: ImagePath) -> None:
    """Removes an image that nobody uses."""
    functions = images_of(platform.view)
    await asyncio.to_thread(platform.images.remove, name, lambda image: _users(platform, image, functions))


async def _build(platform: Control, runtimes: list[Runtime]) -> AsyncIterator[ImageLine]:
    """Builds in a thread, which goes on to the end of a root though nobody listens any more."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[ImageLine | None]()

    def tell(line: ImageLine | None) -> None:
        with suppress(RuntimeError):  # the platform has stopped meanwhile
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def build() -> None:
        for runtime in runtimes:
            try:
                image = debian_root(platform.images, runtime, lambda text: tell(ImageLine(message=text)))
                Inside(image.root).fitted(runtime)
                tell(ImageLine(message=f"{image.name} is ready ({image.digest[:12]})"))
            except MartletError as error:
                tell(ImageLine(message=f"{runtime.name}: {error.detail}", failed=True))
            except Exception:
                tell(ImageLine(message=f"{runtime.name}: {MartletError.title}", failed=True))
                raise

    task = asyncio.create_task(asyncio.to_thread(build))
    task.add_done_callback(lambda _: tell(None))
    while (line := await lines.get()) is not None:
        yield line
    await task


def _view(platform: Control, image: Image, functions: Mapping[str, list[str]]) -> ImageView:
    return ImageView(
        name=image.name,
        digest=image.digest,
        source=image.source,
        size=image.size,
        created=image.created,
        config=image.config,
        used_by=tuple(_users(platform, image, functions)),
    )


def _users(platform: Control, image: Image, functions: Mapping[str, list[str]]) -> list[str]:
    names = {each.name for each in platform.images.list() if each.digest == image.digest}
    setting = ["system.base_image"] if platform.settings.system.base_image in names else []
    return [*setting, *sorted(functions.get(image.digest, []))]
