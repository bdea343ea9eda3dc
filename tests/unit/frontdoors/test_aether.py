"""Aether's API, over the functions of the management API."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from martlet.frontdoors import aether
from tests.unit.control.conftest import HANDLER, Platform, assert_problem, zipped

pytestmark = pytest.mark.anyio

FUNCTIONS = "/api/functions"
WISHES = {
    "name": "hello",
    "runtime": "python",
    "entrypoint": "app.py",
    "vcpu": 2,
    "memory_mb": 256,
    "port": 8080,
    "env_vars": {"SECRET": "123"},
}
NO_SERVER = {
    "status": 502,
    "code": "function_load_failed",
    "detail": "Crashed: it ended",
    "exception": "Crashed",
}


async def create(client: httpx2.AsyncClient, **wishes: Any) -> dict[str, Any]:
    answer = await client.post(FUNCTIONS, json={"name": "hello", "runtime": "python"} | wishes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def upload(client: httpx2.AsyncClient, code: str = HANDLER, function: str = "hello") -> httpx2.Response:
    return await client.post(
        f"{FUNCTIONS}/{function}/code", files={"file": ("code.zip", zipped({"handler.py": code}))}
    )


async def test_a_function_without_code_is_described(client: httpx2.AsyncClient) -> None:
    made = await create(client, **WISHES)
    assert made.pop("created_at") == made.pop("updated_at")
    runtime = made.pop("runtime")
    assert runtime.startswith("python3.")
    wanted = {key: value for key, value in WISHES.items() if key != "runtime"}
    assert made == {"id": "hello", "state": "created", "code_path": "", **wanted}
    assert (await client.get(f"{FUNCTIONS}/hello")).json().items() >= made.items()
    assert_problem(await client.get("/functions/hello"), 404, "function_not_found")


async def test_what_is_not_named_has_aethers_defaults(client: httpx2.AsyncClient) -> None:
    made = await create(client, vcpu=0, memory_mb=0, port=0)
    assert (made["vcpu"], made["memory_mb"], made["port"], made["env_vars"]) == (1, 128, 3000, {})


async def test_with_its_code_it_is_a_function_like_any_other(client: httpx2.AsyncClient) -> None:
    await create(client, **WISHES)
    answer = await upload(client)
    assert (answer.status_code, answer.json()["message"]) == (200, "code uploaded")
    function = (await client.get("/functions/hello")).json()
    config = function["config"]
    assert answer.json()["code_path"] == function["code"]
    assert (config["runtime"], config["handler"]) == ("http", "app.py")
    assert (config["cpu_limit"], config["memory"]) == ("2000m", "256Mi")
    assert config["environment"] == {"SECRET": "123", "PORT": "8080"}
    described = (await client.get(f"{FUNCTIONS}/hello")).json()
    assert (described["state"], described["env_vars"], described["port"]) == (
        "ready",
        {"SECRET": "123"},
        8080,
    )


async def test_code_that_is_no_server_runs_as_its_runtime_says(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    for lane in platform.lanes:
        lane.refuse, lane.refused_runtime = NO_SERVER, "http"
    await create(client)
    assert (await upload(client)).status_code == 200
    assert (await client.get("/functions/hello")).json()["config"]["runtime"].startswith("python3.")
    loads = [load["config"]["runtime"] for lane in platform.lanes for load in lane.loaded]
    assert loads[0] == "http"
    assert not list(platform.control.uploads.iterdir())

    await client.put(f"{FUNCTIONS}/hello", json={"runtime": "python", "memory_mb": 64})
    assert (await client.get(f"{FUNCTIONS}/hello")).json()["memory_mb"] == 64
    assert sum(len(lane.loaded) for lane in platform.lanes) == len(loads) + 1


async def test_code_that_does_not_load_at_all_leaves_the_function_as_it_was(
    platform: Platform, client: httpx2.AsyncClient
) -> None:
    for lane in platform.lanes:
        lane.refuse = NO_SERVER
    await create(client)
    assert_problem(await upload(client), 502, "function_load_failed")
    assert (await client.get(f"{FUNCTIONS}/hello")).json()["state"] == "created"
    assert not list(platform.control.uploads.iterdir())


async def test_code_may_be_the_body_itself(client: httpx2.AsyncClient) -> None:
    await create(client)
    code = zipped({"handler.py": HANDLER})
    for content_type in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = await client.post(f"{FUNCTIONS}/hello/code", content=code, headers=content_type)
        assert answer.status_code == 200, answer.text


async def test_a_form_without_the_file_is_refused(client: httpx2.AsyncClient) -> None:
    await create(client)
    answer = await client.post(f"{FUNCTIONS}/hello/code", files={"code": ("code.zip", b"x")})
    assert assert_problem(answer, 422, "invalid")["field"] == "file"


async def test_new_code_takes_the_place_of_the_old(client: httpx2.AsyncClient) -> None:
    await create(client)
    first = (await upload(client)).json()["code_path"]
    second = (await upload(client, HANDLER + "# changed")).json()["code_path"]
    assert first != second
    assert (await client.get("/functions/hello")).json()["latest"] == 2


@pytest.mark.parametrize("with_code", [False, True])
async def test_a_change_leaves_what_it_does_not_name(client: httpx2.AsyncClient, with_code: bool) -> None:
    await create(client, **WISHES)
    if with_code:
        await upload(client)
    before = (await client.get(f"{FUNCTIONS}/hello")).json()
    changes = {"memory_mb": 512, "env_vars": {"NEW": "1"}}
    after = (await client.put(f"{FUNCTIONS}/hello", json={"name": "hello", **changes})).json()
    assert before | changes | {"updated_at": after["updated_at"]} == after
    ported = (await client.put(f"{FUNCTIONS}/hello", json={"port": 9000})).json()
    assert (ported["port"], ported["env_vars"]) == (9000, {"NEW": "1"})


async def test_functions_of_both_kinds_are_listed(platform: Platform, client: httpx2.AsyncClient) -> None:
    await create(client, name="b")
    await platform.create("a")
    await create(client, name="c")
    await upload(client, function="c")
    listed = (await client.get(FUNCTIONS)).json()
    assert [(one["id"], one["state"]) for one in listed] == [("a", "ready"), ("b", "created"), ("c", "ready")]


@pytest.mark.parametrize("with_code", [False, True])
async def test_a_function_is_deleted(client: httpx2.AsyncClient, with_code: bool) -> None:
    await create(client)
    if with_code:
        await upload(client)
    assert (await client.delete(f"{FUNCTIONS}/hello")).status_code == 204
    for answer in (await client.get(f"{FUNCTIONS}/hello"), await client.delete(f"{FUNCTIONS}/hello")):
        assert_problem(answer, 404, "function_not_found")
    assert (await client.get(FUNCTIONS)).json() == []


async def test_the_latest_runs_are_listed(platform: Platform, client: httpx2.AsyncClient) -> None:
    await create(client)
    assert (await client.get(f"{FUNCTIONS}/hello/invocations")).json() == []
    await upload(client)
    run = {
        "function": "hello",
        "revision": 1,
        "cold": False,
        "started": 0.5,
        "queue_ms": 1.0,
        "start_ms": 2.0,
    }
    ends = [
        ("d", 200, None, 7.4),
        ("c", 500, "function_error", 1.0),
        ("b", 504, "function_timeout", 1.0),
        ("a", 503, None, 1.0),
    ]
    for lane in platform.lanes[:1]:
        lane.invocations = [
            run | {"id": key, "status": status, "error": error, "run_ms": ms}
            for key, status, error, ms in ends
        ]
    found = (await client.get(f"{FUNCTIONS}/hello/invocations")).json()
    assert [(one["id"], one["status"], one["error_message"]) for one in found] == [
        ("d", "success", None),
        ("c", "error", "function_error"),
        ("b", "timeout", "function_timeout"),
        ("a", "error", "status 503"),
    ]
    assert (found[0]["function_id"], found[0]["duration_ms"]) == ("hello", 10)
    assert found[0]["started_at"] == "1970-01-01T00:00:00.500000Z"


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"name": "No Such Name"}, "name"),
        ({"runtime": "cobol"}, "config.runtime"),
        ({"vcpu": -1}, "vcpu"),
        ({"memory_mb": 1}, "config.memory"),
        ({"port": 70000}, "port"),
        ({"env_vars": {"LD_PRELOAD": "x"}}, "config.environment"),
        ({"colour": "blue"}, "colour"),
    ],
)
async def test_what_is_not_allowed_is_named(
    client: httpx2.AsyncClient, wishes: dict[str, Any], field: str
) -> None:
    answer = await client.post(FUNCTIONS, json={"name": "hello", "runtime": "python"} | wishes)
    assert assert_problem(answer, 422, "invalid")["field"] == field
    assert (await client.get(FUNCTIONS)).json() == []


@pytest.mark.parametrize("with_code", [False, True])
async def test_a_name_is_given_once(client: httpx2.AsyncClient, with_code: bool) -> None:
    await create(client)
    if with_code:
        await upload(client)
    assert_problem(await client.post(FUNCTIONS, json={"name": "hello", "runtime": "python"}), 409, "conflict")
    assert_problem(await client.put(f"{FUNCTIONS}/hello", json={"name": "other"}), 409, "conflict")


async def test_a_limited_key_sees_its_own_functions_only(client: httpx2.AsyncClient) -> None:
    await create(client, name="mine")
    await create(client, name="theirs")
    limited = {"x-martlet-functions": "mine"}
    assert [one["id"] for one in (await client.get(FUNCTIONS, headers=limited)).json()] == ["mine"]
    for answer in (
        await client.get(f"{FUNCTIONS}/theirs", headers=limited),
        await client.put(f"{FUNCTIONS}/theirs", json={}, headers=limited),
        await client.delete(f"{FUNCTIONS}/theirs", headers=limited),
        await client.post(f"{FUNCTIONS}/theirs/code", content=b"x", headers=limited),
        await client.get(f"{FUNCTIONS}/theirs/invocations", headers=limited),
        await client.post(FUNCTIONS, json={"name": "new", "runtime": "python"}, headers=limited),
    ):
        assert_problem(answer, 403, "forbidden")


def test_every_endpoint_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "aether.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]+) (/api/functions\S*)`", text, re.MULTILINE))
    served = {(method, route.path) for route in aether.router.routes for method in route.methods}
    assert documented == served
