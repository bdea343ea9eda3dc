"""Keys: their secrets are shown once, and the last that can make others stays."""

import stat
import time
from hashlib import sha256

import pytest

from tests.unit.control.conftest import Platform, assert_problem, running

pytestmark = pytest.mark.anyio


async def stored(platform, key_id):
    return (await platform.control.registry.get_key(key_id)).hashes


async def test_a_key_is_made_and_its_secret_is_shown_once_and_stored_as_its_hash(platform, client):
    body = {"name": "ci", "scopes": ["invoke", "manage"], "functions": ["hello"], "rate_limit": "100/min"}
    answer = await client.post("/keys", json=body)
    assert answer.status_code == 201
    made = answer.json()
    secret = made.pop("secret")
    assert secret.startswith("mk_")
    assert len(secret) >= 43 + 3
    assert made in (await client.get("/keys")).json()
    assert {name: made[name] for name in body} == body
    assert await stored(platform, made["id"]) == {sha256(secret.encode()).hexdigest(): None}
    entries, _ = await platform.store.list("/")
    assert all(secret.encode() not in entry.value for entry in entries)
    written = (await platform.store.get(f"/keys/{made['id']}")).revision
    assert all(max(lane.synced) >= written for lane in platform.lanes)


async def test_a_rotated_key_has_one_secret_or_for_a_while_two(platform, client):
    made = (await client.post("/keys", json={"name": "x", "scopes": ["invoke"]})).json()
    first = sha256(made["secret"].encode()).hexdigest()
    rotated = await client.post(f"/keys/{made['id']}/rotate", json={"overlap": 60})
    second = sha256(rotated.json()["secret"].encode()).hexdigest()
    hashes = await stored(platform, made["id"])
    assert hashes[second] is None
    assert 50 < hashes[first] - time.time() <= 60
    await client.post(f"/keys/{made['id']}/rotate", json={"overlap": 3600})
    assert (await stored(platform, made["id"]))[first] == hashes[first], "a rotation prolongs nothing"
    third = (await client.post(f"/keys/{made['id']}/rotate")).json()["secret"]
    assert await stored(platform, made["id"]) == {sha256(third.encode()).hexdigest(): None}


async def test_a_revoked_key_is_gone(client):
    made = (await client.post("/keys", json={"name": "x", "scopes": ["invoke"]})).json()
    assert (await client.delete(f"/keys/{made['id']}")).status_code == 204
    assert made["id"] not in [key["id"] for key in (await client.get("/keys")).json()]
    for answer in (
        await client.delete(f"/keys/{made['id']}"),
        await client.post(f"/keys/{made['id']}/rotate"),
    ):
        assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", "application/json; charset=utf-8"]
)
async def test_a_body_is_json_where_its_sender_does_not_say_so(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = await client.post("/keys", content=b'{"name": "x", "scopes": ["invoke"]}', headers=headers)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": "invoke"}, "scopes"),
        ({"functions": []}, "functions"),
        ({"functions": ["Not A Name"]}, "functions"),
        ({"rate_limit": "fast"}, "rate_limit"),
        ({"expires": -1}, "expires"),
        ({"expires": 10**30}, "expires"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_key_that_cannot_be_names_its_field(client, change, field):
    answer = await client.post("/keys", json={"name": "x", "scopes": ["invoke"]} | change)
    assert assert_problem(answer, 422, "invalid")["field"].split(".")[0] == field


async def test_an_overlap_that_cannot_be_is_refused(client):
    for overlap in (-1, 10**9, "long"):
        answer = await client.post("/keys/demo-key/rotate", json={"overlap": overlap})
        assert assert_problem(answer, 422, "invalid")["field"] == "overlap"


async def test_development_has_the_two_well_known_keys(client):
    keys = {key["id"]: key for key in (await client.get("/keys")).json()}
    assert keys["demo-key"]["scopes"] == ["invoke", "manage"]
    assert keys["admin-key"]["scopes"] == ["admin", "invoke", "manage"]
    assert keys["demo-key"]["trusted"]
    assert len(keys) == 2


async def test_outside_development_the_well_known_keys_vanish_and_an_administrator_is_made(tmp_path):
    platform = Platform(tmp_path)
    async with running(platform):
        await platform.stop()
        system = platform.settings.system.model_copy(update={"development": False})
        platform.settings = platform.settings.model_copy(update={"system": system})
        await platform.start()
        (key,) = (await platform.client.get("/keys")).json()
        assert (key["name"], key["scopes"]) == ("administrator", ["admin", "invoke", "manage"])
        path = system.function_storage_path / "admin.key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        secret = path.read_text().strip()
        assert await stored(platform, key["id"]) == {sha256(secret.encode()).hexdigest(): None}
        await platform.stop()
        await platform.start()
        assert [one["id"] for one in (await platform.client.get("/keys")).json()] == [key["id"]]
        assert path.read_text().strip() == secret


async def test_the_last_key_that_can_make_others_cannot_be_revoked(tmp_path):
    async with running(Platform(tmp_path, development=False)) as platform:
        (only,) = (await platform.client.get("/keys")).json()
        await platform.client.post(
            "/keys", json={"name": "soon gone", "scopes": ["admin"], "expires": time.time() + 60}
        )
        assert_problem(await platform.client.delete(f"/keys/{only['id']}"), 409, "conflict")
        await platform.client.post("/keys", json={"name": "other", "scopes": ["admin"]})
        assert (await platform.client.delete(f"/keys/{only['id']}")).status_code == 204


async def test_nor_can_the_well_known_one_where_there_is_no_other(client):
    assert_problem(await client.delete("/keys/admin-key"), 409, "conflict")
    await client.post("/keys", json={"name": "other", "scopes": ["admin"]})
    assert (await client.delete("/keys/admin-key")).status_code == 204
