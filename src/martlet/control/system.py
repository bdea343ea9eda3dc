"""``/health`` and ``/ready``: is it alive, and can it run functions."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter

from martlet import __version__
from martlet.control.parameters import Platform, problems
from martlet.errors import Unavailable
from martlet.model import Frozen
from martlet.storage.store import StoreError

router = APIRouter(tags=["platform"])

OPEN: dict[str, Any] = {"security": []}
"""What needs no key."""


class Health(Frozen):
    """Control is alive."""

    status: Literal["ok"] = "ok"
    version: str = __version__


class Readiness(Frozen):
    """Functions can be deployed and run; ``lanes`` answer of ``of``."""

    status: Literal["ready"] = "ready"
    lanes: int
    of: int
    functions: int


@router.get("/health", responses=problems(), openapi_extra=OPEN)
async def health() -> Health:
    """Says that control is alive."""
    return Health()


@router.get("/ready", responses=problems(), openapi_extra=OPEN)
async def ready(platform: Platform) -> Readiness:
    """Says whether functions can be deployed and run."""
    try:
        await platform.store.revision()
    except StoreError as error:
        raise Unavailable(f"the store is out of reach: {error}") from error
    lanes = await platform.lanes.health()
    living = sum(said is not None for said in lanes.values())
    if not living:
        raise Unavailable("no lane answers; they may be starting")
    return Readiness(lanes=living, of=len(lanes), functions=len(platform.view.functions))
