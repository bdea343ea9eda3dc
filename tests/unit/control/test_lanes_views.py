"""What lanes know, shown as one: instances, invocations, counters, logs."""

import asyncio
import json

import pytest

from martlet.control.api import create_app
from martlet.control.following import Missing, followed
from tests.unit.control.conftest import assert_problem

pytestmark = pytest.mark.anyio


def instance(lane: int, number: int, function: str = "hello") -> dict[str, object]:
    return {
        "id": f"{lane}-{number}",
        "function": function,
        "revision": 1,
        "node": f"lane-{lane}",
        "driver": "process",
        "state": "idle",
        "pid": 1,
        "created": number,
        "last_used": number,
        "requests": 0,
        "memory_bytes": None,
    }


def invocation(number: int) -> dict[str, object]:
    return {
        "id": str(number),
        "function": "hello",
        "revision": 1,
        "status": 200,
        "cold": False,
        "started": number,
        "queue_ms": 0,
        "start_ms": 0,
        "run_ms": 1,
        "error": None,
    }


def line(at: float, message: str, request_id: str | None = None) -> dict[str, object]:
    return {
        "time": at,
        "function": "hello",
        "revision": 1,
        "instance": "0-1",
        "request_id": request_id,
        "stream": "stdout",
        "message": message,
    }


async def test_instances_of_all_lanes_are_listed_and_can_be_stopped(platform, client):
    platform.lanes[0].instances = [instance(0, 1), instance(0, 3)]
    platform.lanes[1].instances = [instance(1, 2)]
    assert [one["id"] for one in (await client.get("/instances")).json()] == ["0-1", "1-2", "0-3"]
    assert (await client.delete("/instances/1-2")).status_code == 204
    assert [one["id"] for one in (await client.get("/instances")).json()] == ["0-1", "0-3"]
    assert_problem(await client.delete("/instances/1-2"), 404, "not_found")
    assert_problem(await client.delete("/instances/%2e%2e%2fx"), 404, "not_found")


async def test_instances_of_other_functions_can_be_neither_seen_nor_stopped(platform, client):
    platform.lanes[0].instances = [instance(0, 1, "mine"), instance(0, 2, "yours")]
    limited = {"x-martlet-functions": "mine"}
    assert [one["id"] for one in (await client.get("/instances", headers=limited)).json()] == ["0-1"]
    assert_problem(await client.delete("/instances/0-2", headers=limited), 404, "not_found")
    assert (await client.delete("/instances/0-1", headers=limited)).status_code == 204


def scaling(lane: int, instances: int) -> dict[str, object]:
    windows = {"basis": "ttl", "linger": 600, "begin": 600, "end": 600}
    decision = {
        "time": 1e9 + lane,
        "node": f"lane-{lane}",
        "revision": 1,
        "action": "start",
        "instances": 1,
        "times": 1,
        "reason": "a request waited, and there was no instance",
    }
    return {
        "node": f"lane-{lane}",
        "instances": instances,
        "busy": 0,
        "starting": 0,
        "waiting": 0,
        "last_used": None,
        "why": "it has not been called here",
        "keep_alive": windows,
        "learned": windows | {"basis": "few"},
        "idle_times": 0,
        "decisions": [decision],
    }


async def test_a_function_is_explained_by_every_lane_that_answers(platform, client):
    await platform.create("hello", min_instances=1, max_instances=7)
    platform.lanes[0].scaling, platform.lanes[1].scaling = scaling(0, 2), scaling(1, 1)
    found = (await client.get("/functions/hello/scaling")).json()
    assert (found["instances"], found["min_instances"], found["max_instances"]) == (3, 1, 7)
    assert found["nodes"] == [scaling(0, 2), scaling(1, 1)]
    await platform.lanes[1].stop()
    assert [node["node"] for node in (await client.get("/functions/hello/scaling")).json()["nodes"]] == [
        "lane-0"
    ]


async def test_invocations_of_all_lanes_are_listed_newest_first(platform, client):
    await platform.create()
    platform.lanes[0].invocations = [invocation(5), invocation(1)]
    platform.lanes[1].invocations = [invocation(4), invocation(2)]
    listed = (await client.get("/functions/hello/invocations")).json()
    assert [one["id"] for one in listed] == ["5", "4", "2", "1"]
    assert len((await client.get("/functions/hello/invocations?limit=3")).json()) == 3
    for limit in ("0", "x", "10001", "9" * 40):
        answer = await client.get(f"/functions/hello/invocations?limit={limit}")
        assert assert_problem(answer, 422, "invalid")["field"] == "limit"


async def test_counters_of_all_lanes_are_added_up(platform, client):
    await platform.create()
    await platform.create("quiet")
    for lane, requests in zip(platform.lanes, (3, 4), strict=True):
        for _ in range(requests):
            lane.stats.function("hello").record(200, 0.001, 0.0, 0.01)
        lane.stats.function("hello").record(500, 0.0, 0.02, 0.01, cold=True, error="function_error")
        lane.stats.instances["hello"] = {"idle": 1}
        lane.stats.refuse("unauthenticated")
    stats = (await client.get("/stats/functions/hello")).json()
    assert (stats["function"], stats["requests"], stats["cold_starts"]) == ("hello", 9, 2)
    assert stats["statuses"] == {"2xx": 7, "5xx": 2}
    assert stats["errors"] == {"function_error": 2}
    assert stats["instances"] == {"idle": 2}
    assert 8 < stats["run_ms"]["p50"] <= 12.5
    total = (await client.get("/stats")).json()
    assert (total["requests"], total["functions"]) == (9, {"hello": 9, "quiet": 0})
    assert total["refused"] == {"unauthenticated": 2}
    assert total["lanes"] == 2


async def test_metrics_are_those_of_all_lanes_and_of_control(platform, client):
    await platform.create()
    platform.lanes[1].stats.function("hello").record(200, 0.001, 0.0, 0.01)
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'martlet_requests_total{code="200",function="hello"} 1.0' in answer.text
    assert 'martlet_process_resident_memory_bytes{process="control"}' in answer.text


async def test_what_a_lane_that_is_away_would_say_is_left_out(platform, client):
    await platform.create()
    platform.lanes[0].instances = [instance(0, 1)]
    await platform.lanes[1].stop()
    assert [one["id"] for one in (await client.get("/instances")).json()] == ["0-1"]
    assert (await client.get("/stats")).json()["lanes"] == 1
    (node,) = (await client.get("/nodes")).json()
    assert {lane["name"]: lane["state"] for lane in node["lanes"]} == {"lane-0": "ready", "lane-1": "away"}
    assert (node["state"], node["instances"], node["capacity"], node["cells"]) == ("ready", 1, 500, 2)
    assert (await client.put("/functions/hello", json={"config": {"timeout": 3}})).status_code == 200


async def test_readiness_needs_a_lane(platform, client):
    ready = await client.get("/ready")
    assert (ready.status_code, ready.json()["lanes"], ready.json()["of"]) == (200, 2, 2)
    await platform.lanes[0].stop()
    assert (await client.get("/ready")).json()["lanes"] == 1
    await platform.lanes[1].stop()
    assert_problem(await client.get("/ready"), 503, "unavailable")
    assert (await client.get("/health")).json()["status"] == "ok"


async def test_logs_of_all_lanes_are_in_the_order_of_time(platform, client):
    await platform.create()
    platform.lanes[0].lines = [line(1, "a"), line(3, "c", "r1")]
    platform.lanes[1].lines = [line(2, "b"), line(4, "d", "r1")]
    read = (await client.get("/functions/hello/logs")).json()
    assert [one["message"] for one in read] == ["a", "b", "c", "d"]
    read = (await client.get("/functions/hello/logs?tail=3")).json()
    assert [one["message"] for one in read] == ["b", "c", "d"]
    assert (await client.get("/functions/hello/logs?tail=0")).json() == []
    read = (await client.get("/functions/hello/logs?request_id=r1")).json()
    assert [one["message"] for one in read] == ["c", "d"]
    read = (await client.get("/functions/hello/logs?request_id=r1&tail=1")).json()
    assert [one["message"] for one in read] == ["d"]
    for query in ("tail=-1", "tail=x", "follow=maybe", "request_id=" + "x" * 200):
        answer = await client.get(f"/functions/hello/logs?{query}")
        assert assert_problem(answer, 422, "invalid")["field"] == query.split("=")[0]


async def test_followed_logs_are_the_last_lines_and_then_those_to_come_of_every_lane(platform):
    await platform.create()
    platform.lanes[0].lines = [line(1, "a"), line(3, "c")]
    platform.lanes[1].lines = [line(2, "b")]
    everything = followed(platform.control.machines, "hello", 2)
    lines = (line async for line in everything if not isinstance(line, Missing))
    try:
        async with asyncio.timeout(60):
            assert [(await anext(lines)).message for _ in range(2)] == ["b", "c"]
            platform.lanes[1].say(line(4, "d"))
            assert (await anext(lines)).message == "d"
            await platform.lanes[1].stop()
            platform.lanes[0].say(line(5, "e"))
            assert (await anext(lines)).message == "e"
            await platform.lanes[1].start()
            platform.lanes[1].say(line(6, "f"))
            assert (await anext(lines)).message == "f"
    finally:
        await lines.aclose()
        await everything.aclose()


async def test_followed_logs_are_sent_as_events(platform, client):
    await platform.create()
    platform.lanes[0].lines = [line(1, "a", "r1"), line(2, "b")]
    url = "/functions/hello/logs?follow=1&request_id=r1"
    seen = asyncio.Event()
    received = b""

    async def receive() -> dict[str, object]:
        await seen.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        nonlocal received
        received += message.get("body", b"")  # type: ignore[operator]
        if b"\n\n" in received:
            seen.set()

    path, _, query = url.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "server": None,
        "client": None,
    }
    async with asyncio.timeout(60):
        await create_app(platform.control)(scope, receive, send)
    (event,) = received.decode().strip().split("\n\n")
    assert json.loads(event.removeprefix("data: "))["message"] == "a"
