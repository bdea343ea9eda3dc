"""Keys cannot be guessed, bent, or used for what they are not for. Scopes, rotation and expiry have their tests in
tests/system (test_failures.py, test_running.py)."""

import inspect
import time

import pytest

from martlet.gateway import admission
from tests.security.conftest import undisturbed
from tests.security.wire import Wire


def status_of(platform, *headers, path=b"/functions"):
    """Returns the status of a request with exactly these headers."""
    with Wire(platform.port) as wire:
        wire.send(
            b"GET " + path + b" HTTP/1.1\r\n" + b"\r\n".join([b"host: localhost", *headers]) + b"\r\n\r\n"
        )
        return wire.response()[0]


def test_a_key_counts_in_its_header_only(platform):
    assert status_of(platform, b"authorization: Bearer demo-key") == 200
    for path in (
        b"/functions?key=demo-key",
        b"/functions?access_token=demo-key",
        b"/functions?authorization=Bearer%20demo-key",
    ):
        assert status_of(platform, path=path) == 401
    for header in (
        b"cookie: authorization=Bearer demo-key; key=demo-key; token=demo-key",
        b"x-api-key: demo-key",
        b"x-authorization: Bearer demo-key",
        b"proxy-authorization: Bearer demo-key",
        b"x-martlet-key: demo-key",
        b"authorization: demo-key",
        b"authorization: Basic ZGVtby1rZXk6ZGVtby1rZXk=",
        b"authorization: Bearer",
        b"authorization: Bearer demo",
        b"authorization: Bearer DEMO-KEY",
        b"authorization: Bearer demo-key\t\xa0",
        b"authorization: Bearer demo-key, Bearer demo-key",
        b"authorization: Bearer " + b"demo-key" * 1000,
        b"authorization: Bearer \xff\xfe",
    ):
        assert status_of(platform, header) == 401, header


def test_secrets_are_compared_by_their_digest_alone():
    """How long a look-up takes must say nothing of how much of a guess was right: none compares the secrets."""
    source = inspect.getsource(admission.Admission.principal)
    assert "sha256(" in source
    assert source.index("sha256(") < source.index(".get(digest)")
    assert "secret" not in source


def test_no_answer_and_no_log_tells_a_key_again(platform):
    made = platform.admin.post("/keys", json={"name": "told-once", "scopes": ["invoke"]}).json()
    told_again = platform.admin.get("/keys").text
    assert made["secret"] not in told_again
    assert (
        platform.invoke("neighbour", headers={"authorization": f"Bearer {made['secret']}"}).status_code == 200
    )
    assert made["secret"] not in platform.log()
    stored = [file for file in platform.data.rglob("*") if file.name != "admin.key"]
    assert not [file for file in stored if made["secret"].encode() in content(file)]


def content(file):
    """Returns what is in a file; nothing where it has just gone, or is none."""
    try:
        return file.read_bytes() if file.is_file() else b""
    except FileNotFoundError:
        return b""


@pytest.mark.parametrize("scopes", [["invoke"], ["manage"], ["admin"], []])
def test_a_scope_opens_its_own_doors_only(platform, scopes):
    answer = platform.admin.post("/keys", json={"name": "-".join(scopes) or "none", "scopes": scopes})
    if not scopes:
        assert answer.status_code == 422
        return
    client = platform.client_for(answer.json()["secret"])
    doors = {
        "invoke": [
            ("POST", "/invoke/neighbour"),
            ("POST", "/functions/neighbour/"),
            ("PUT", "/invoke/neighbour/x"),
        ],
        "manage": [
            ("GET", "/functions"),
            ("GET", "/functions/neighbour"),
            ("PUT", "/functions/neighbour"),
            ("DELETE", "/functions/nobody"),
            ("GET", "/functions/neighbour/logs"),
            ("GET", "/functions/neighbour/invocations"),
            ("GET", "/functions/neighbour/scaling"),
            ("GET", "/functions/neighbour/revisions"),
            ("POST", "/functions/neighbour/rollback"),
            ("PUT", "/functions/neighbour/code"),
            ("GET", "/instances"),
            ("DELETE", "/instances/nobody"),
            ("GET", "/stats"),
            ("GET", "/metrics"),
            ("GET", "/nodes"),
            ("GET", "/builds/nobody"),
        ],
        "admin": [
            ("GET", "/keys"),
            ("POST", "/keys"),
            ("DELETE", "/keys/nobody"),
            ("POST", "/keys/nobody/rotate"),
        ],
    }
    for scope, requests in doors.items():
        for method, path in requests:
            allowed = client.request(method, path).status_code not in (401, 403)
            assert allowed == (scope in scopes), (method, path)


def test_a_key_for_one_function_learns_nothing_of_others(platform):
    platform.deploy("of-the-key", "def handle(request):\n    return 1\n")
    body = {"name": "narrow", "scopes": ["invoke", "manage"], "functions": ["of-the-key"]}
    client = platform.client_for(platform.admin.post("/keys", json=body).json()["secret"])
    assert client.post("/invoke/of-the-key").status_code == 200
    theirs = platform.instances("neighbour")[0]["id"]
    build = platform.client.put("/functions/neighbour", json={"config": {}}).json()["build"]
    for method, path in (
        ("GET", "/functions/neighbour"),
        ("PUT", "/functions/neighbour"),
        ("DELETE", "/functions/neighbour"),
        ("GET", "/functions/neighbour/logs"),
        ("GET", "/functions/neighbour/invocations"),
        ("GET", "/functions/neighbour/scaling"),
        ("GET", "/functions/neighbour/revisions"),
        ("GET", "/functions/neighbour/aliases"),
        ("PUT", "/functions/neighbour/aliases/mine"),
        ("POST", "/functions/neighbour/rollback"),
        ("GET", "/stats/functions/neighbour"),
        ("GET", f"/builds/{build}"),
        ("DELETE", f"/instances/{theirs}"),
        ("POST", "/invoke/neighbour"),
        ("POST", "/invoke/neighbour@1"),
        ("POST", "/functions/neighbour/x"),
    ):
        answer = client.request(method, path, json={"weights": {"1": 100}} if method == "PUT" else None)
        assert answer.status_code in (403, 404), (method, path, answer.text)
    for path in ("/functions", "/instances", "/stats", "/metrics", "/builds"):
        answer = client.get(path)
        assert answer.status_code in (403, 404, 405) or "neighbour" not in answer.text, path
    assert (
        client.post("/functions", json={"name": "another", "code": "def handle(r): pass"}).status_code == 403
    )
    assert [instance["id"] for instance in platform.instances("neighbour")].count(theirs) == 1
    platform.client.delete("/functions/of-the-key")


def test_a_revoked_key_opens_nothing(platform):
    key = platform.admin.post("/keys", json={"name": "revoked", "scopes": ["manage"]}).json()
    client = platform.client_for(key["secret"])
    assert client.get("/functions").status_code == 200
    assert platform.admin.delete(f"/keys/{key['id']}").status_code == 204
    assert client.get("/functions").status_code == 401


def test_an_expired_key_opens_nothing(platform):
    for seconds in (1.5, 5, 30):  # a busy machine may not ask in the time of the first
        document = {"name": "expired", "scopes": ["manage"], "expires": time.time() + seconds}
        key = platform.admin.post("/keys", json=document).json()
        client = platform.client_for(key["secret"])
        opened = client.get("/functions").status_code
        if time.time() < key["expires"]:
            break
    assert opened == 200
    time.sleep(max(0.0, key["expires"] - time.time()) + 0.05)
    assert client.get("/functions").status_code == 401


def test_guessing_is_limited_and_nobody_else_is(platform):
    """The last test of this module: this machine's address has used up its wrong keys afterwards."""
    with undisturbed(platform), platform.client_for(None) as guesser:
        statuses = [
            guesser.get("/functions", headers={"authorization": f"Bearer guess-{n}"}).status_code
            for n in range(300)
        ]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 2 * platform.settings.system.wrong_keys_per_client.events
    assert 429 in statuses[-10:]  # a further one is allowed each second
