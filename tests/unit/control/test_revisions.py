"""What a function was before, the way back, and names for chosen revisions."""

import pytest

from tests.unit.control.conftest import assert_problem

pytestmark = pytest.mark.anyio


@pytest.fixture
async def three(platform):
    """A function with the revisions 1, 2 and 3."""
    await platform.create(code="def handle(r): return 1")
    for number in (2, 3):
        answer = await platform.client.put(
            "/functions/hello", json={"code": f"def handle(r): return {number}"}
        )
        assert answer.status_code == 200


async def test_revisions_are_listed_newest_first_and_one_serves(client, three):
    listed = (await client.get("/functions/hello/revisions")).json()
    assert [(one["id"], one["serving"]) for one in listed] == [
        ("hello@3", True),
        ("hello@2", False),
        ("hello@1", False),
    ]
    assert (await client.get("/functions/hello/revisions/2")).json() == listed[1]


async def test_a_rollback_loads_the_old_revision_and_then_lets_it_serve(platform, client, three):
    before = (await client.get("/functions/hello/revisions/1")).json()
    answer = await client.post("/functions/hello/rollback", json={"revision": 1})
    assert answer.status_code == 200
    assert (answer.json()["latest"], answer.json()["code"]) == (1, before["code"])
    assert platform.lanes[0].loaded[-1]["number"] == 1
    written = (await platform.store.get("/functions/hello")).revision
    assert all(max(lane.synced) >= written for lane in platform.lanes)
    after = (await client.put("/functions/hello", json={"code": "def handle(r): return 4"})).json()
    assert after["latest"] == 4, "numbers go on where they were"


async def test_a_rollback_after_a_failed_deploy_makes_the_function_ready_again(platform, client, three):
    platform.lanes[0].refuse = {"status": 502, "code": "function_load_failed", "detail": "no"}
    await client.put("/functions/hello", json={"code": "def handle(:"})
    assert (await client.get("/functions/hello")).json()["state"] == "failed"
    platform.lanes[0].refuse = None
    assert (await client.post("/functions/hello/rollback", json={"revision": 2})).json()["state"] == "ready"


async def test_a_rollback_to_what_does_not_load_any_more_changes_nothing(platform, client, three):
    platform.lanes[0].refuse = {"status": 502, "code": "function_load_failed", "detail": "gone"}
    answer = await client.post("/functions/hello/rollback", json={"revision": 1})
    assert_problem(answer, 502, "function_load_failed")
    assert (await client.get("/functions/hello")).json()["latest"] == 3


async def test_a_rollback_to_what_serves_does_nothing(platform, client, three):
    loads = len(platform.lanes[0].loaded)
    assert (await client.post("/functions/hello/rollback", json={"revision": 3})).json()["latest"] == 3
    assert len(platform.lanes[0].loaded) == loads


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"revision": 9}, 404),
        ({"revision": 0}, 422),
        ({"revision": 10**30}, 422),
        ({"revision": "x"}, 422),
        ({}, 422),
        ({"revision": 1, "more": 1}, 422),
        ([], 422),
        (None, 422),
    ],
)
async def test_a_rollback_that_cannot_be_is_refused(client, three, body, status):
    answer = await client.post("/functions/hello/rollback", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_revision_that_is_not_there_is_not_found(client, three):
    assert_problem(await client.get("/functions/hello/revisions/9"), 404, "function_not_found")
    for number in ("0", "x", "9" * 30):
        assert (
            assert_problem(await client.get(f"/functions/hello/revisions/{number}"), 422, "invalid")["field"]
            == "number"
        )


async def test_an_alias_is_made_shown_changed_and_deleted(platform, client, three):
    made = await client.put("/functions/hello/aliases/live", json={"weights": {"2": 90, "3": 10}})
    assert made.json() == {"function": "hello", "name": "live", "weights": {"2": 90, "3": 10}}
    assert (await client.get("/functions/hello/aliases/live")).json() == made.json()
    changed = await client.put("/functions/hello/aliases/live", json={"weights": {"3": 100}})
    assert (await client.get("/functions/hello/aliases")).json() == [changed.json()]
    written = (await platform.store.get("/aliases/hello/live")).revision
    assert all(max(lane.synced) >= written for lane in platform.lanes)
    assert (await client.delete("/functions/hello/aliases/live")).status_code == 204
    assert_problem(await client.get("/functions/hello/aliases/live"), 404, "function_not_found")
    assert_problem(await client.delete("/functions/hello/aliases/live"), 404, "function_not_found")


@pytest.mark.parametrize(
    ("alias", "weights", "field"),
    [
        ("live", {"1": 50}, "weights"),
        ("live", {"1": 150, "2": -50}, "weights"),
        ("live", {}, "weights"),
        ("live", {"x": 100}, "weights.x"),
        ("live", {"9": 100}, "weights.9"),
        ("live", {"-1": 100}, "weights.-1"),
        ("live", {str(10**30): 100}, f"weights.{10**30}"),
        ("live", {"1": "many"}, "weights.1"),
        ("live", {str(n): 9 for n in range(11)}, "weights"),
        ("live", None, "weights"),
        ("latest", {"1": 100}, "alias"),
        ("Live", {"1": 100}, "alias"),
        ("3", {"1": 100}, "alias"),
    ],
)
async def test_an_alias_that_cannot_be_names_its_field(platform, client, three, alias, weights, field):
    answer = await client.put(f"/functions/hello/aliases/{alias}", json={"weights": weights})
    assert assert_problem(answer, 422, "invalid")["field"].startswith(field)
    assert (await platform.view()).aliases == {}
