"""``/instances``: the sandboxes that live now."""

from __future__ import annotations

from fastapi import APIRouter, Response

from martlet.control.caller import Who
from martlet.control.parameters import OF_FUNCTION, OF_MACHINES, Id, Platform
from martlet.model import InstanceView

router = APIRouter(tags=["instances"])


@router.get("/instances", responses=OF_MACHINES)
async def list_instances(platform: Platform, who: Who, response: Response) -> list[InstanceView]:
    """Lists the living instances of the functions that the key may see, on all machines, the oldest first."""
    found = await platform.machines.instances()
    response.headers.update(found.headers)
    return [instance for instance in found.things if who.sees(instance.function)]


@router.delete("/instances/{id}", status_code=204, responses=OF_FUNCTION)
async def stop_instance(platform: Platform, who: Who, id: Id) -> None:  # noqa: A002 - the name people see
    """Ends an instance after what it runs; another starts when it is needed."""
    await platform.machines.stop(id, who.sees)
