"""``/stats`` and ``/metrics``: what all lanes have counted, added up."""

from __future__ import annotations

from dataclasses import asdict

import structlog
from fastapi import APIRouter, Response

from martlet.control.caller import Who
from martlet.control.control import Control
from martlet.control.functions import find
from martlet.control.parameters import OF_FUNCTION, Name, Platform, problems
from martlet.model import Frozen
from martlet.storage.queue import QueueError
from martlet.telemetry.metrics import CONTENT_TYPE, exposition
from martlet.telemetry.process import ProcessStats
from martlet.telemetry.stats import FunctionStats, LaneStats

log = structlog.get_logger()

router = APIRouter(tags=["stats"])

Percentiles = dict[str, float | None]


class Counters(Frozen):
    """What happened to invocations since the lanes were started; times are milliseconds, null where there were none.

    ``statuses`` counts by class of status, ``errors`` by the code of the platform's error; ``start_ms`` is of cold
    starts only; ``instances`` counts the living ones by state.
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


@router.get("/stats", responses=problems())
async def platform_stats(platform: Platform, who: Who) -> PlatformCounters:
    """Adds up what happened to all functions that the key may see."""
    stats, lanes = await _collected(platform)
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
        lanes=lanes,
    )


@router.get("/stats/functions/{name}", responses=OF_FUNCTION)
async def function_stats(platform: Platform, who: Who, name: Name) -> FunctionCounters:
    """Adds up what happened to one function."""
    who.check(name)
    find(platform, name)
    stats, _ = await _collected(platform)
    return FunctionCounters(
        **stats.function(name).summary(), instances=stats.instances.get(name, {}), function=name
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}, **problems()},
)
async def metrics(platform: Platform, who: Who) -> Response:
    """Counters and histograms of the whole platform, for Prometheus; for keys that are not limited to functions."""
    who.check_unlimited("see the counters of all")
    stats, _ = await _collected(platform)
    stats.processes["control"] = ProcessStats.measure()
    return Response(
        exposition(stats, await _waiting(platform), platform.leadership.leads),
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


async def _collected(platform: Control) -> tuple[LaneStats, int]:
    """Returns the counters of the lanes that answer, added up, and how many these are."""
    collected = LaneStats()
    documents = await platform.lanes.stats()
    for document in documents:
        collected.merge(document)
    return collected, len(documents)
