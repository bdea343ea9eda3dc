"""What the lanes of several machines know, shown as one; and who is silent is named."""

import asyncio
from contextlib import aclosing

import pytest

from martlet.control.following import Missing, followed
from martlet.model import ExecutionMode, Node, NodeLane, Role
from martlet.peer_address import PeerAddress
from martlet.storage.registry import Registry
from tests.unit.control.conftest import FakeLane, assert_problem
from tests.unit.control.test_lanes_views import instance, invocation, line, scaling

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(platform, tmp_path):
    """Another machine with two lanes, which is asked by the lanes of this one."""
    lanes = [FakeLane(tmp_path / f"other-{number}.sock", number) for number in range(2)]
    for own in platform.lanes:
        own.others = {f"other/{lane.name}": lane for lane in lanes}
    platform.control.machines._clustered = True
    await join(platform, "other")
    await platform.create()
    return lanes


async def join(platform, name):
    registry = Registry(platform.store)
    node = Node(
        id=name,
        host=name,
        address=None,
        roles=(Role.NODE,),
        version="1",
        rungs=(ExecutionMode.PROCESS,),
        runtimes=(),
        cores=1,
        memory=1,
        load=0,
        lanes=(NodeLane(name="lane-0", state="ready"), NodeLane(name="lane-1", state="ready")),
        started=0,
        peer=PeerAddress("10.0.0.2", 8001),
    )
    await platform.control.view.catch_up(await registry.put_node(node, await registry.join(60)))


def silence(platform, name="other/lane-1"):
    for lane in platform.lanes:
        lane.others.pop(name, None)


async def test_instances_of_all_machines_are_listed_with_the_machine_and_stopped_where_they_are(
    platform, client, other
):
    own = platform.control.machines.own
    platform.lanes[0].instances, other[1].instances = [instance(0, 2)], [instance(1, 1)]
    answer = await client.get("/instances")
    assert [(one["id"], one["node"]) for one in answer.json()] == [
        ("1-1", "other/lane-1"),
        ("0-2", f"{own}/lane-0"),
    ]
    assert "x-faas-missing" not in answer.headers
    limited = {"x-martlet-functions": "another"}
    assert_problem(await client.delete("/instances/1-1", headers=limited), 404, "not_found")
    assert (await client.delete("/instances/1-1")).status_code == 204
    assert other[1].instances == []
    assert len(platform.lanes[0].instances) == 1
    assert_problem(await client.delete("/instances/1-1"), 404, "not_found")


async def test_an_instance_that_a_silent_machine_may_have_is_not_said_to_be_none(platform, client, other):
    silence(platform)
    problem = assert_problem(await client.delete("/instances/1-1"), 503, "unavailable")
    assert "other does not answer" in problem["detail"]


async def test_a_machine_that_does_not_answer_is_named_wherever_what_it_has_is_left_out(
    platform, client, other
):
    other[0].lines, other[0].invocations = [line(1, "a")], [invocation(1)]
    other[0].scaling = platform.lanes[0].scaling = platform.lanes[1].scaling = scaling(0, 1)
    silence(platform)
    for path in (
        "/instances",
        "/functions/hello/logs",
        "/functions/hello/invocations",
        "/functions/hello/scaling",
        "/stats",
        "/stats/functions/hello",
    ):
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["x-faas-missing"]) == (200, "other"), path
    assert (await client.get("/stats")).json()["missing"] == ["other"]
    assert [one["message"] for one in (await client.get("/functions/hello/logs")).json()] == ["a"]
    assert len((await client.get("/functions/hello/invocations")).json()) == 1


async def test_a_machine_that_never_answers_is_not_waited_for(platform, client, other, monkeypatch):
    monkeypatch.setattr("martlet.control.machines.ASK_TIMEOUT", 1.0)
    stuck = asyncio.Event()

    async def hang(*_):
        await stuck.wait()
        return 204, None

    other[0]._answer = hang
    platform.lanes[0].instances = [instance(0, 1)]
    answer = await client.get("/instances")
    stuck.set()
    assert (len(answer.json()), answer.headers["x-faas-missing"]) == (1, "other")


async def test_another_lane_asks_where_the_first_is_being_started(platform, client, other):
    other[0].instances = [instance(0, 1)]
    await platform.lanes[0].stop()
    answer = await client.get("/instances")
    assert [one["node"] for one in answer.json()] == ["other/lane-0"]
    assert answer.headers["x-faas-missing"] == platform.control.machines.own


async def test_counts_of_machines_add_up_and_percentiles_are_of_all_their_calls(platform, client, other):
    for _ in range(90):
        platform.lanes[0].stats.function("hello").record(200, 0.0, 0.0, 0.010)
    for _ in range(10):
        other[0].stats.function("hello").record(500, 0.0, 0.0, 10.0, error="function_error")
    other[1].stats.instances["hello"] = {"busy": 2}
    found = (await client.get("/stats/functions/hello")).json()
    assert (found["requests"], found["statuses"]) == (100, {"2xx": 90, "5xx": 10})
    assert (found["errors"], found["instances"]) == ({"function_error": 10}, {"busy": 2})
    assert found["run_ms"]["p50"] <= 10  # an average of both machines' would be seconds
    assert found["run_ms"]["p95"] > 5000
    total = (await client.get("/stats")).json()
    assert (total["requests"], total["lanes"], total["missing"]) == (100, 4, [])


async def test_metrics_are_of_the_machine_that_was_asked(platform, client, other):
    platform.lanes[0].stats.function("hello").record(200, 0.0, 0.0, 0.01)
    other[1].stats.function("hello").record(404, 0.0, 0.0, 0.01)
    here = (await client.get("/metrics")).text
    there = (await client.get("/metrics", headers={"x-martlet-node": "other"})).text
    assert 'martlet_requests_total{code="200"' in here
    assert 'process="control"' in here
    assert 'code="404"' not in here
    assert 'martlet_requests_total{code="404"' in there
    assert 'process="control"' not in there
    nobody = await client.get("/metrics", headers={"x-martlet-node": "nobody"})
    assert_problem(nobody, 503, "unavailable")


async def test_invocations_of_all_machines_are_the_newest_first(platform, client, other):
    platform.lanes[1].invocations = [invocation(5), invocation(1)]
    other[0].invocations = [invocation(4)]
    other[1].invocations = [invocation(6), invocation(2)]
    found = (await client.get("/functions/hello/invocations?limit=4")).json()
    assert [one["id"] for one in found] == ["6", "5", "4", "2"]


async def test_lanes_of_machines_explain_a_function_by_names_that_differ(platform, client, other):
    platform.lanes[0].scaling = platform.lanes[1].scaling = scaling(0, 1)
    other[0].scaling, other[1].scaling = scaling(0, 2), scaling(1, 3)
    found = (await client.get("/functions/hello/scaling")).json()
    assert found["instances"] == 7
    assert found["nodes"][-1]["node"] == found["nodes"][-1]["decisions"][0]["node"] == "other/lane-1"


async def test_logs_of_all_machines_are_in_the_order_of_time(platform, client, other):
    platform.lanes[0].lines = [line(1, "a"), line(4, "d", "r1")]
    other[0].lines = [line(3, "c", "r1")]
    other[1].lines = [line(2, "b")]
    answer = await client.get("/functions/hello/logs")
    assert [one["message"] for one in answer.json()] == ["a", "b", "c", "d"]
    answer = await client.get("/functions/hello/logs?request_id=r1")
    assert [one["message"] for one in answer.json()] == ["c", "d"]


async def test_machines_are_followed_also_those_that_come_later(platform, other, monkeypatch):
    monkeypatch.setattr("martlet.control.following.LOOK_AGAIN", 0.02)
    platform.lanes[0].lines = [line(1, "a")]
    other[0].lines = [line(2, "b")]
    async with asyncio.timeout(60), aclosing(followed(platform.control.machines, "hello", 5)) as lines:
        assert [(await anext(lines)).message for _ in range(2)] == ["a", "b"]
        other[1].say(line(3, "c"))
        assert (await anext(lines)).message == "c"
        late = FakeLane(platform.lanes[0].socket, 0)
        for own in platform.lanes:
            own.others |= {"late/lane-0": late, "late/lane-1": late}
        await join(platform, "late")
        while not late.asked_to_follow:
            await asyncio.sleep(0.01)
        late.say(line(4e9, "d"))
        assert (await anext(lines)).message == "d"


async def test_who_follows_is_told_which_machines_are_silent(platform, other, monkeypatch):
    monkeypatch.setattr("martlet.control.following.LOOK_AGAIN", 0.02)
    silence(platform, "other/lane-0")
    async with asyncio.timeout(60), aclosing(followed(platform.control.machines, "hello", 0)) as lines:
        assert await anext(lines) == Missing(missing=("other",))
        for own in platform.lanes:
            own.others["other/lane-0"] = other[0]
        assert await anext(lines) == Missing(missing=())


async def test_what_lines_a_follower_has_had_do_not_come_again_with_no_tail(platform, other):
    platform.lanes[0].lines, other[0].lines = [line(1, "a")], [line(2, "b")]
    async with asyncio.timeout(60), aclosing(followed(platform.control.machines, "hello", 0)) as lines:
        following = asyncio.ensure_future(anext(lines))
        while not other[0].asked_to_follow or not platform.lanes[0].asked_to_follow:
            await asyncio.sleep(0.01)
        other[0].say(line(3, "c"))
        assert (await following).message == "c"


async def test_what_machines_of_a_newer_version_say_besides_is_left_out(platform, client, other):
    def newer(document):
        return {**document, "of_the_future": {"any": "thing"}}

    lane = other[0]
    lane.instances, lane.invocations = [newer(instance(0, 1))], [newer(invocation(1))]
    told = scaling(0, 1)
    for each in (*platform.lanes, *other):
        each.scaling = told
    lane.scaling = newer({**told, "keep_alive": newer(told["keep_alive"])})
    lane.lines = [newer(line(1.0, "said"))]
    for path in ("/instances", "/functions/hello/invocations", "/functions/hello/logs"):
        answer = await client.get(path)
        assert (answer.status_code, len(answer.json())) == (200, 1), answer.text
        assert "of_the_future" not in answer.text
    answer = await client.get("/functions/hello/scaling")
    assert answer.status_code == 200, answer.text
