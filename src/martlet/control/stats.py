"""``/stats``: what the lanes of all machines have counted, added up. ``/metrics``: those of the one that is asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Response

from martlet.control.caller import Who
from martlet.control.control import Control
from martlet.control.functions import find
from martlet.control.machines import Found
from martlet.control.nodes import states_of
from martlet.control.parameters import OF_MACHINES, Name, Platform, problems
from martlet.errors import Unavailable
from martlet.model import Frozen
from martlet.storage.queue import QueueError
from martlet.storage.store import StoreError
from martlet.telemetry.metrics import CONTENT_TYPE, exposition
from martlet.telemetry.process import ProcessStats
from martlet.telemetry.stats import FunctionStats, LaneStats

log = structlog.get_logger()

router = APIRouter(tags=["stats"])

Percentiles = dict[str, float | None]
AskedMachine = Annotated[str | None, Header(alias="x-martlet-node", include_in_schema=False)]
"""The id of the machine that a client has asked, where that has passed the request on."""


class Counters(Frozen):
    """What happened to invocations since the lanes were started; times are milliseconds, null where there were none.

    ``statuses`` counts by class of status, ``errors`` by the code of the platform's error; ``start_ms`` is of cold
    starts only; ``instances`` counts the living ones by state. ``missing`` has the ids of the machines that do not
    answer: what they have counted is left out.
    """

    requests: int
    statuses: dict[str, int]
    errors: dict[str, int]
    cold_starts: int
    bytes_in: int
    bytes_out: int
    latency_ms: Percentiles
    queue_ms: Percentiles
    start_ms: Percentiles
    run_ms: Percentiles
    instances: dict[str, int]
    missing: tuple[str, ...]


class FunctionCounters(Counters):
    """The counters of one function."""

    function: str


class PlatformCounters(Counters):
    """The counters of all functions that the key may see, and by function how many requests each had.

    ``refused`` counts requests that reached no function, by the code of their error; ``cells`` those that stand
    ready, by runtime.
    """

    functions: dict[str, int]
    refused: dict[str, int]
    connections: int
    cells: dict[str, int]
    lanes: int


@router.get("/stats", responses=OF_MACHINES)
async def platform_stats(platform: Platform, who: Who, response: Response) -> PlatformCounters:
    """Adds up what happened to all functions that the key may see, on all machines."""
    found = await platform.machines.stats()
    response.headers.update(found.headers)
    stats = _sum_of(found)
    seen = [name for name in platform.view.functions if who.sees(name)]
    total = FunctionStats()
    instances: dict[str, int] = {}
    for name in seen:
        total.add(stats.function(name))
        for state, count in stats.instances.get(name, {}).items():
            instances[state] = instances.get(state, 0) + count
    return PlatformCounters(
        **total.summary(),
        instances=instances,
        functions={name: stats.function(name).requests for name in sorted(seen)},
        refused=stats.refused,
        connections=stats.connections,
        cells=stats.cells,
        lanes=len(found.things),
        missing=found.missing,
    )


@router.get("/stats/functions/{name}", responses=OF_MACHINES)
async def function_stats(platform: Platform, who: Who, response: Response, name: Name) -> FunctionCounters:
    """Adds up what happened to one function, on all machines."""
    who.check(name)
    find(platform, name)
    found = await platform.machines.stats()
    response.headers.update(found.headers)
    stats = _sum_of(found)
    return FunctionCounters(
        **stats.function(name).summary(),
        instances=stats.instances.get(name, {}),
        missing=found.missing,
        function=name,
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}, **problems()},
)
async def metrics(platform: Platform, who: Who, asked: AskedMachine = None) -> Response:
    """Counters and histograms of the machine that is asked, for Prometheus; for keys not limited to functions."""
    who.check_unlimited("see the counters of all")
    own = asked in (None, platform.machines.own)
    found = await platform.machines.stats(platform.machines.own if asked is None else asked)
    if not own and (found.missing or not found.things):
        raise Unavailable(f"the node {asked} does not answer")
    stats = _sum_of(found)
    if own:
        stats.processes["control"] = ProcessStats.measure()
    return Response(
        exposition(
            stats,
            await _waiting(platform) if own else {},
            own and platform.leadership.leads,
            await states_of(platform) if own else {},
            await _builds(platform) if own else {},
        ),
        headers={"content-type": CONTENT_TYPE},
    )


async def _waiting(platform: Control) -> dict[str, dict[str, int]]:
    """Returns how many asynchronous invocations wait, by function and state; none where the queue is out of reach."""
    try:
        return {
            name: asdict(await platform.invocations.queue(name).depth())
            for name in await platform.invocations.functions()
        }
    except QueueError as error:
        log.warning("queues_out_of_reach", error=str(error))
        return {}


async def _builds(platform: Control) -> dict[str, int]:
    """Returns how many deploys have not ended, by whether a machine has them; none without the store."""
    try:
        waiting = await platform.queue.waiting()
    except StoreError as error:
        log.warning("builds_not_counted", error=str(error))
        return {}
    building = sum(bool(each.node) for each in waiting)
    return {"building": building, "waiting": len(waiting) - building}


def _sum_of(found: Found[dict[str, Any]]) -> LaneStats:
    """Adds up the counters of lanes."""
    total = LaneStats()
    for document in found.things:
        total.merge(document)
    return total
