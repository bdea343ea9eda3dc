"""Functions through the management API: made, changed, listed, deleted."""

import asyncio
import io
import json
import tarfile

import pytest

from martlet.model import Scope
from tests.unit.control.conftest import HANDLER, Platform, assert_problem, running, zipped

pytestmark = pytest.mark.anyio

LOAD_FAILURE = {
    "status": 502,
    "code": "function_load_failed",
    "detail": "SyntaxError: invalid syntax",
    "exception": "SyntaxError",
    "traceback": "Traceback (most recent call last):\n  File handler.py\nSyntaxError: invalid syntax\n",
}


async def files_of(platform: Platform, digest: str) -> dict[str, str]:
    content = await platform.blobs.get("packages", digest)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {one.name: archive.extractfile(one).read().decode() for one in archive if one.isfile()}


async def test_a_function_is_made_from_inline_code_and_every_lane_knows_before_the_answer(platform):
    made = await platform.create("hello-world", timeout=30, memory="128Mi")
    assert (made["name"], made["latest"], made["state"], made["unchanged"]) == (
        "hello-world",
        1,
        "ready",
        False,
    )
    assert made["url"] == "http://faas.example:8000/invoke/hello-world"
    assert (made["config"]["memory"], made["config"]["timeout"]) == ("128Mi", 30)
    assert await files_of(platform, made["code"]) == {"handler.py": HANDLER}
    written = (await platform.store.get("/functions/hello-world")).revision
    assert all(max(lane.synced) >= written for lane in platform.lanes)


async def test_a_revision_is_loaded_before_anything_points_at_it(platform):
    lane = platform.lanes[0]
    lane.hold.clear()
    making = asyncio.create_task(platform.create())
    await lane.loading.wait()
    view = await platform.view()
    assert (view.functions, view.revisions) == ({}, {})
    lane.hold.set()
    await making
    assert [(one["function"], one["number"]) for one in lane.loaded] == [("hello", 1)]


async def test_the_example_of_the_documentation_works_as_written(client):
    body = """{
      "name": "my-function",
      "code": "def handle(request):\\n    return {'result': 'success'}",
      "config": {
        "execution_mode": "process",
        "timeout": 30,
        "memory": "256Mi",
        "cpu_limit": "100m",
        "environment": {"API_KEY": "secret"},
        "min_instances": 0,
        "max_instances": 10
      }
    }"""
    made = await client.post("/functions", content=body, headers={"content-type": "application/json"})
    assert made.status_code == 201
    body = """{
      "code": "def handle(request):\\n    return {'result': 'updated'}",
      "config": {"timeout": 60}
    }"""
    changed = await client.put(
        "/functions/my-function", content=body, headers={"content-type": "application/json"}
    )
    assert changed.status_code == 200
    before, after = made.json()["config"], changed.json()["config"]
    assert after == before | {"timeout": 60}
    assert changed.json()["latest"] == 2


async def test_the_description_of_a_function_is_what_making_it_answered(platform, client):
    made = await platform.create()
    described = (await client.get("/functions/hello")).json()
    assert described == {name: made[name] for name in described}
    assert set(made) - set(described) == {"build", "revision", "unchanged"}


async def test_functions_are_listed_by_name(platform, client):
    for name in ("b", "a", "c"):
        await platform.create(name)
    assert [one["name"] for one in (await client.get("/functions")).json()] == ["a", "b", "c"]


async def test_code_alone_keeps_the_configuration_and_configuration_alone_keeps_the_code(platform, client):
    made = await platform.create(timeout=7)
    changed = (await client.put("/functions/hello", json={"code": "def handle(r): return 2"})).json()
    assert changed["config"] == made["config"]
    assert changed["code"] != made["code"]
    again = (await client.put("/functions/hello", json={"config": {"memory": "64Mi"}})).json()
    assert again["code"] == changed["code"]
    assert (again["config"]["timeout"], again["config"]["memory"], again["latest"]) == (7, "64Mi", 3)


async def test_the_same_code_and_configuration_make_no_revision(platform, client):
    made = await platform.create()
    for change in ({"code": HANDLER}, {"config": {"memory": "128Mi"}}, {}):
        answer = await client.put("/functions/hello", json=change)
        assert answer.status_code == 200
        assert (answer.json()["unchanged"], answer.json()["latest"]) == (True, 1)
        assert answer.json()["updated"] == made["updated"]
    assert len(platform.lanes[0].loaded) == 1


async def test_the_same_code_of_two_functions_is_stored_once(platform):
    assert (await platform.create("a"))["code"] == (await platform.create("b"))["code"]
    assert len(await platform.blobs.list("packages")) == 1


async def test_a_name_that_is_taken_is_a_conflict(platform, client):
    await platform.create()
    problem = assert_problem(
        await client.post("/functions", json={"name": "hello", "code": "def handle(r): return 9"}),
        409,
        "conflict",
    )
    assert "PUT /functions/hello" in problem["detail"]
    assert (await client.get("/functions/hello")).json()["latest"] == 1


async def test_what_does_not_exist_is_not_found(client):
    for answer in (
        await client.get("/functions/nobody"),
        await client.put("/functions/nobody", json={"code": "x"}),
        await client.put("/functions/nobody/code", content=zipped({"handler.py": HANDLER})),
        await client.delete("/functions/nobody"),
        await client.get("/functions/nobody/revisions"),
        await client.post("/functions/nobody/rollback", json={"revision": 1}),
        await client.get("/functions/nobody/aliases"),
        await client.put("/functions/nobody/aliases/live", json={"weights": {"1": 100}}),
        await client.get("/functions/nobody/logs"),
        await client.get("/functions/nobody/invocations"),
        await client.get("/functions/nobody/scaling"),
        await client.get("/stats/functions/nobody"),
    ):
        assert_problem(answer, 404, "function_not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"name": None}, "name"),
        ({"name": "a" * 64}, "name"),
        ({"code": None}, "code"),
        ({"code": 3}, "code"),
        ({"code": "  \n"}, "code"),
        ({"config": []}, "config"),
        ({"config": {"memory": "lots"}}, "config.memory"),
        ({"config": {"memory": "1Ki"}}, "config.memory"),
        ({"config": {"timeout": -1}}, "config.timeout"),
        ({"config": {"timeout": "NaN"}}, "config.timeout"),
        ({"config": {"cpu_limit": "fast"}}, "config.cpu_limit"),
        ({"config": {"execution_mode": "teapot"}}, "config.execution_mode"),
        ({"config": {"execution_mode": "wasm"}}, "config.execution_mode"),
        ({"config": {"runtime": "cobol"}}, "config.runtime"),
        ({"config": {"min_instances": 5, "max_instances": 1}}, "config"),
        ({"config": {"max_instances": 10**400}}, "config.max_instances"),
        ({"config": {"environment": {"LD_PRELOAD": "/x"}}}, "config.environment"),
        ({"config": {"environment": {"A": [1]}}}, "config.environment.A"),
        ({"config": {"dependencies": ["-r /etc/passwd"]}}, "config.dependencies"),
        ({"config": {"no_such_key": 1}}, "config.no_such_key"),
        ({"surprise": 1}, "surprise"),
    ],
)
async def test_bad_input_names_its_field_and_stores_nothing(platform, client, change, field):
    body = json.dumps({"name": "invalid", "code": HANDLER, "config": {}} | change)
    answer = await client.post("/functions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["field"] == field
    assert (await platform.view()).revisions == {}
    assert await platform.blobs.list("packages") == [] or field == "config.dependencies"
    assert platform.lanes[0].loaded == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 5000]
)
async def test_a_body_that_is_not_json_is_refused(client, content):
    answer = await client.post("/functions", content=content, headers={"content-type": "application/json"})
    assert_problem(answer, 400, "bad_request")


async def test_a_body_that_is_no_object_is_refused(client):
    assert_problem(await client.post("/functions", json=[1]), 422, "invalid")


async def test_a_function_cannot_be_renamed(platform, client):
    await platform.create()
    assert (await client.put("/functions/hello", json={"name": "hello", "config": {}})).status_code == 200
    answer = await client.put("/functions/hello", json={"name": "other", "code": "x = 1"})
    assert assert_problem(answer, 409, "conflict")["field"] == "name"


async def test_code_that_does_not_load_fails_the_deploy_and_the_old_revision_serves_on(platform, client):
    await platform.create()
    platform.lanes[0].refuse = LOAD_FAILURE
    problem = assert_problem(
        await client.put("/functions/hello", json={"code": "def handle(:"}), 502, "function_load_failed"
    )
    assert problem["detail"] == "SyntaxError: invalid syntax"
    assert "Traceback" not in json.dumps(problem)
    assert "  File handler.py" in problem["log"]
    described = (await client.get("/functions/hello")).json()
    assert (described["latest"], described["state"]) == (1, "failed")
    build = (await client.get(f"/builds/{problem['build']}")).json()
    assert (build["state"], build["error"], build["revision"]) == (
        "failed",
        "SyntaxError: invalid syntax",
        None,
    )

    platform.lanes[0].refuse = None
    fixed = (await client.put("/functions/hello", json={"code": "def handle(r): return 1"})).json()
    assert fixed["state"] == "ready"
    numbers = [one["number"] for one in platform.lanes[0].loaded]
    assert len(set(numbers)) == len(numbers), "a number is given once, also when the deploy fails"


async def test_a_first_deploy_that_fails_leaves_nothing(platform, client):
    platform.lanes[0].refuse = LOAD_FAILURE
    answer = await client.post("/functions", json={"name": "hello", "code": "def handle(:"})
    assert_problem(answer, 502, "function_load_failed")
    view = await platform.view()
    assert (view.functions, view.revisions) == ({}, {})
    assert_problem(await client.get("/functions/hello"), 404, "function_not_found")
    platform.lanes[0].refuse = None
    assert (await platform.create())["latest"] == 1


async def test_a_lane_that_is_away_is_passed_over_and_none_at_all_is_unavailable(platform, client):
    await platform.lanes[0].stop()
    await platform.create("one")
    assert [one["function"] for one in platform.lanes[1].loaded] == ["one"]
    await platform.lanes[1].stop()
    answer = await client.post("/functions", json={"name": "two", "code": HANDLER})
    assert_problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert [one["name"] for one in (await client.get("/functions")).json()] == ["one"]


async def test_a_lane_without_room_is_no_capacity(platform, client):
    platform.lanes[0].refuse = {"status": 503, "code": "no_capacity", "detail": "full"}
    answer = await client.post("/functions", json={"name": "two", "code": HANDLER})
    assert_problem(answer, 503, "no_capacity")


@pytest.mark.parametrize("method", ["form", "raw"])
async def test_an_archive_is_taken(platform, client, method):
    files = {"handler.py": "def handle(r): return 5\n", "lib/util.py": "X = 1\n"}
    archive = zipped({f"repository-main/{name}": text for name, text in files.items()})
    if method == "form":
        form = {"name": "hello", "config": json.dumps({"memory": "64Mi"})}
        answer = await client.post("/functions", data=form, files={"archive": ("code.zip", archive)})
        assert answer.status_code == 201, answer.text
        assert answer.json()["config"]["memory"] == "64Mi"
    else:
        await platform.create()
        answer = await client.put("/functions/hello/code", content=archive)
        assert answer.status_code == 200, answer.text
        assert answer.json()["latest"] == 2
    assert await files_of(platform, answer.json()["code"]) == files
    assert list(platform.control.uploads.iterdir()) == []


async def test_what_a_program_has_printed_is_told_where_it_says_nothing_else(platform, client):
    crashed = {"detail": "Crashed: it ended with exit code 3", "exception": "Crashed", "traceback": ""}
    platform.lanes[0].refuse = LOAD_FAILURE | crashed | {"log": ["no port", "", "good bye"]}

    answer = await client.post("/functions", json={"name": "hello", "code": HANDLER})

    problem = assert_problem(answer, 502, "function_load_failed")
    assert problem["log"][-3:] == ["no port", "good bye", "Crashed: it ended with exit code 3"]


async def test_a_form_changes_code_configuration_or_both(platform, client):
    await platform.create()
    archive = ("any name", zipped({"handler.py": "def handle(r): return 6\n"}))
    both = await client.put("/functions/hello", data={"config": '{"timeout": 5}'}, files={"archive": archive})
    assert (both.json()["latest"], both.json()["config"]["timeout"]) == (2, 5)
    one = await client.put("/functions/hello", files={"config": (None, '{"timeout": 6}')})
    assert (one.json()["latest"], one.json()["code"]) == (3, both.json()["code"])


@pytest.mark.parametrize(
    ("data", "files", "field"),
    [
        ({"name": "hello"}, {}, "archive"),
        ({}, {"archive": ("a", b"x")}, "name"),
        ({"name": "hello", "config": "{"}, {"archive": ("a", b"x")}, "config"),
        ({"name": "hello", "config": "[]"}, {"archive": ("a", b"x")}, "config"),
        (
            {"name": "hello", "config": '{"memory": 1}'},
            {"archive": ("a", zipped({"handler.py": ""}))},
            "config.memory",
        ),
        ({"name": "hello", "archive": "text"}, {"x": (None, "")}, "archive"),
        ({"name": "hello"}, {"other": ("a", b"x")}, "other"),
        ({"name": "hello", "surprise": "1"}, {"archive": ("a", b"x")}, "surprise"),
        ({"name": "hello"}, {"archive": ("a.zip", b"not a zip")}, "code"),
        ({"name": "hello"}, {"archive": ("a.zip", zipped({"../evil": "x"}))}, "code"),
    ],
)
async def test_a_form_that_is_wrong_names_its_field_and_keeps_nothing(platform, client, data, files, field):
    answer = await client.post("/functions", data=data, files=files or {"x": (None, "")})
    if not files:
        field = "x"
    assert assert_problem(answer, 422, "invalid")["field"] == field
    assert list(platform.control.uploads.iterdir()) == []
    assert await platform.blobs.list("packages") == []


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=x"])
async def test_a_form_that_is_none_is_refused(client, kind):
    answer = await client.post("/functions", content=b"nonsense", headers={"content-type": kind})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_deploy_that_nobody_waits_for_is_followed_by_its_build(platform, client):
    lane = platform.lanes[0]
    lane.hold.clear()
    answer = await client.post("/functions?wait=false", json={"name": "hello", "code": HANDLER})
    assert answer.status_code == 202
    build = answer.json()
    assert answer.headers["location"] == f"/builds/{build['id']}"
    assert build["finished"] is None
    await lane.loading.wait()
    assert (await client.get(f"/builds/{build['id']}")).json()["state"] == "loading"
    lane.hold.set()
    log = await client.get(f"/builds/{build['id']}/logs")
    assert log.headers["content-type"].startswith("text/event-stream")
    messages = [json.loads(line.removeprefix("data: "))["message"] for line in log.text.split("\n\n") if line]
    assert messages[-1] == "hello@1 serves"
    done = (await client.get(f"/builds/{build['id']}")).json()
    assert (done["state"], done["revision"]) == ("ready", 1)
    assert (await client.get("/functions/hello")).status_code == 200


async def test_updates_of_one_function_at_once_all_happen_one_after_the_other(platform, client):
    await platform.create(environment={"START": "1"})
    changes = [{"timeout": 11}, {"memory": "64Mi"}, {"max_instances": 3}, {"concurrency": 2}]
    answers = await asyncio.gather(*(client.put("/functions/hello", json={"config": one}) for one in changes))
    assert sorted(answer.json()["revision"] for answer in answers) == [2, 3, 4, 5]
    config = (await client.get("/functions/hello")).json()["config"]
    assert (config["timeout"], config["memory"], config["max_instances"], config["concurrency"]) == (
        11,
        "64Mi",
        3,
        2,
    )


async def test_one_of_many_that_make_the_same_function_succeeds(client):
    bodies = [{"name": "hello", "code": f"def handle(r): return {n}"} for n in range(5)]
    answers = await asyncio.gather(*(client.post("/functions", json=body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_functions_are_deployed_beside_one_another(platform, client):
    lane = platform.lanes[0]
    lane.hold.clear()
    one, two = (asyncio.create_task(platform.create(name)) for name in ("one", "two"))
    while len(lane.loaded) < 2:
        await asyncio.sleep(0)
    lane.hold.set()
    await asyncio.gather(one, two)


async def test_a_deleted_function_is_gone_with_all_that_was_its(platform, client):
    made = await platform.create()
    await client.put("/functions/hello/aliases/live", json={"weights": {"1": 100}})
    answer = await client.delete("/functions/hello")
    assert (answer.status_code, answer.content) == (204, b"")
    assert_problem(await client.get("/functions/hello"), 404, "function_not_found")
    view = await platform.view()
    assert (view.functions, view.revisions, view.aliases) == ({}, {}, {})
    assert all(("DELETE", "/_node/functions/hello") in lane.asked for lane in platform.lanes)
    await platform.control.garbage.close()
    platform.control.garbage.sweep_soon()
    while await platform.blobs.exists("packages", made["code"]):
        await asyncio.sleep(0.01)
    assert (await platform.create())["latest"] == 1


async def test_a_key_limited_to_functions_sees_and_touches_only_these(platform, client):
    await platform.create("mine")
    await platform.create("yours")
    limited = {"x-martlet-key": "k1", "x-martlet-scopes": Scope.MANAGE, "x-martlet-functions": "mine,new"}
    listed = await client.get("/functions", headers=limited)
    assert [one["name"] for one in listed.json()] == ["mine"]
    assert [one["function"] for one in (await client.get("/builds", headers=limited)).json()] == ["mine"]
    assert list((await client.get("/stats", headers=limited)).json()["functions"]) == ["mine"]
    for method, path in (
        ("GET", "/functions/yours"),
        ("PUT", "/functions/yours"),
        ("DELETE", "/functions/yours"),
        ("PUT", "/functions/yours/code"),
        ("GET", "/functions/yours/revisions"),
        ("GET", "/functions/yours/revisions/1"),
        ("POST", "/functions/yours/rollback"),
        ("GET", "/functions/yours/aliases"),
        ("GET", "/functions/yours/aliases/live"),
        ("PUT", "/functions/yours/aliases/live"),
        ("DELETE", "/functions/yours/aliases/live"),
        ("GET", "/functions/yours/logs"),
        ("GET", "/functions/yours/invocations"),
        ("GET", "/functions/yours/scaling"),
        ("GET", "/stats/functions/yours"),
        ("GET", "/keys"),
    ):
        body = {"revision": 1, "weights": {"1": 100}}
        body = {"rollback": {"revision": 1}, "live": {"weights": {"1": 100}}}.get(path.rpartition("/")[2], {})
        answer = await client.request(method, path, headers=limited, json=body)
        assert_problem(answer, 403, "forbidden")
    other = {"name": "other", "code": HANDLER}
    assert_problem(await client.post("/functions", headers=limited, json=other), 403, "forbidden")
    new = await client.post("/functions", headers=limited, json={"name": "new", "code": HANDLER})
    assert new.status_code == 201
    build = next(one for one in (await client.get("/builds")).json() if one["function"] == "yours")
    assert_problem(await client.get(f"/builds/{build['id']}", headers=limited), 404, "not_found")
    assert_problem(await client.get(f"/builds/{build['id']}/logs", headers=limited), 404, "not_found")


async def test_revisions_beyond_those_kept_are_deleted_with_their_packages(tmp_path):
    async with running(Platform(tmp_path, revisions_kept=2)) as platform:
        first = await platform.create(code="def handle(r): return 0")
        second = (
            await platform.client.put("/functions/hello", json={"code": "def handle(r): return 1"})
        ).json()
        await platform.client.put("/functions/hello/aliases/old", json={"weights": {"1": 100}})
        for number in range(2, 6):
            await platform.client.put("/functions/hello", json={"code": f"def handle(r): return {number}"})
        listed = (await platform.client.get("/functions/hello/revisions")).json()
        assert [one["number"] for one in listed] == [6, 5, 1]
        await platform.control.garbage.close()
        platform.control.garbage.sweep_soon()
        while await platform.blobs.exists("packages", second["code"]):
            await asyncio.sleep(0.01)
        assert await platform.blobs.exists("packages", first["code"])


@pytest.mark.parametrize("host", ["evil host", "a/b", "<x>", ""])
async def test_an_odd_host_header_does_not_reach_the_url(platform, client, host):
    await platform.create()
    answer = await client.get("/functions/hello", headers={"host": host})
    assert answer.json()["url"] == "http://127.0.0.1:8000/invoke/hello"


async def test_behind_a_proxy_with_tls_the_url_is_one_with_tls(platform, client):
    await platform.create()
    answer = await client.get("/functions/hello", headers={"x-forwarded-proto": "https"})
    assert answer.json()["url"] == "https://faas.example:8000/invoke/hello"
