"""``/instances``: the sandboxes that live now."""

from __future__ import annotations

from fastapi import APIRouter

from martlet.control.caller import Who
from martlet.control.parameters import OF_FUNCTION, Id, Platform
from martlet.errors import NotFound
from martlet.model import InstanceView

router = APIRouter(tags=["instances"])


@router.get("/instances", responses=OF_FUNCTION)
async def list_instances(platform: Platform, who: Who) -> list[InstanceView]:
    """Lists the living instances of the functions that the key may see, the oldest first."""
    return [instance for instance in await platform.lanes.instances() if who.sees(instance.function)]


@router.delete("/instances/{id}", status_code=204, responses=OF_FUNCTION)
async def stop_instance(platform: Platform, who: Who, id: Id) -> None:  # noqa: A002 - the name people see
    """Ends an instance after what it runs; another starts when it is needed."""
    if who.functions is not None:
        visible = {
            instance.id for instance in await platform.lanes.instances() if who.sees(instance.function)
        }
        if id not in visible:
            raise NotFound(f"there is no instance {id!r}")
    await platform.lanes.stop(id)
