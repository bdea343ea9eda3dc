"""``/runtimes``: the languages that functions may be written in here."""

from __future__ import annotations

from fastapi import APIRouter

from martlet.control.parameters import Platform, problems
from martlet.model import Frozen

router = APIRouter(tags=["platform"])


class RuntimeView(Frozen):
    """A language in the version that this machine has; ``names`` are what ``config.runtime`` may say for it."""

    name: str
    title: str
    version: str
    names: tuple[str, ...]
    default_handler: str


@router.get("/runtimes", responses=problems())
async def list_runtimes(platform: Platform) -> list[RuntimeView]:
    """Lists the runtimes of this machine."""
    return [
        RuntimeView(
            name=runtime.name,
            title=runtime.description.title,
            version=runtime.version,
            names=runtime.names,
            default_handler=runtime.description.default_handler,
        )
        for runtime in platform.catalogue.available()
    ]
