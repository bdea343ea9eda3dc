"""``/runtimes``: the languages that functions may be written in here, and why not in others."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import Field

from martlet.control.parameters import Platform, problems
from martlet.model import Frozen
from martlet.runtimes.discovery import Absent, remedy
from martlet.runtimes.runtime import Runtime

router = APIRouter(tags=["platform"])


class RuntimeView(Frozen):
    """A language in a version that this machine has, or one that it lacks."""

    name: str = Field(description="The exact name, which never means another version.")
    names: tuple[str, ...] = Field(
        description="What `config.runtime` may say for it; none where it cannot run."
    )
    title: str = Field(description="What people call it.")
    version: str | None = Field(description="Its version here; null where it has none.")
    runs: bool = Field(description="Whether this machine runs its functions.")
    builds: bool = Field(description="Whether it builds them from source.")
    inline: bool = Field(description="Whether its code may be sent as text.")
    announced_by: tuple[str, ...] = Field(description="The files that say a package is of this language.")
    missing: str | None = Field(description="Why it does not run, or does not build, in a sentence.")
    remedy: str | None = Field(description="What to do about that.")


@router.get("/runtimes", responses=problems())
async def list_runtimes(platform: Platform) -> list[RuntimeView]:
    """Lists the runtimes of this machine, and those that it could have."""
    await asyncio.to_thread(platform.catalogue.refresh)
    there = [_there(runtime) for runtime in platform.catalogue.available()]
    return there + [_lacking(absent) for absent in platform.catalogue.absent()]


def _there(runtime: Runtime) -> RuntimeView:
    lacks = ", ".join(program.key for program in runtime.lacks)
    return RuntimeView(
        name=runtime.name,
        names=runtime.names,
        title=runtime.description.title,
        version=runtime.version or None,
        runs=True,
        builds=runtime.builds,
        inline=runtime.description.inline_file is not None,
        announced_by=runtime.description.announced_by,
        missing=f"there is no {lacks}, which it builds with" if lacks else None,
        remedy=remedy(runtime.lacks),
    )


def _lacking(absent: Absent) -> RuntimeView:
    return RuntimeView(
        name=absent.name,
        names=(),
        title=absent.title,
        version=None,
        runs=False,
        builds=False,
        inline=False,
        announced_by=(),
        missing=absent.reason,
        remedy=absent.remedy,
    )
