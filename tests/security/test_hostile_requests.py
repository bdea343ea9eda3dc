"""Whatever bytes a client sends: one refusal, no request that nobody meant, no memory, and nobody else waits."""

import json
import time

import pytest

from tests.security.conftest import bounded_memory, undisturbed
from tests.security.wire import Wire, post
from tests.system.conftest import until

KEY = b"host: localhost\r\nauthorization: Bearer demo-key\r\n"
POST = b"POST /invoke/mirror HTTP/1.1\r\n" + KEY
GET = b"GET /invoke/mirror HTTP/1.1\r\n" + KEY
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
SMUGGLED = b"POST /invoke/mirror?smuggled HTTP/1.1\r\n" + KEY + b"content-length: 0\r\n\r\n"
MIRROR = """
seen = []
def handle(request):
    seen.append(request.path + "?" + "&".join(request.query_params))
    headers = [[name, value] for name, value in request.headers.items()]
    return {"seen": seen, "headers": headers, "path": request.path, "body": request.get_text()}
"""


@pytest.fixture(scope="module", autouse=True)
def mirror(platform):
    platform.deploy("mirror", MIRROR, max_instances=1, timeout=10)
    return "/invoke/mirror"


def exchange(platform, data):
    """Returns all that a connection brings which ends with ``data``."""
    with Wire(platform.port) as wire:
        wire.send(data)
        return wire.rest()


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b" transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST + b"x: y\r\n transfer-encoding: chunked\r\n\r\n" + SMUGGLED,
        POST + b"content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        POST + b"content-length: 0, 0\r\n\r\n" + SMUGGLED,
        POST + b"content-length: +0\r\n\r\n" + SMUGGLED,
        POST + b"content-length: -1\r\n\r\n" + SMUGGLED,
        POST + b"content-length: 0x0\r\n\r\n" + SMUGGLED,
        POST + b"content-length: 18446744073709551616\r\n\r\n" + SMUGGLED,
        POST + b"content-length: \r\n\r\n" + SMUGGLED,
        POST + b"content-length : 0\r\n\r\n" + SMUGGLED,
        POST + b"x: y\rcontent-length: 0\r\n\r\n" + SMUGGLED,
        POST + b"x: y\ncontent-length: 0\r\n\r\n" + SMUGGLED,
        POST + b"x: y\0z\r\n\r\n" + SMUGGLED,
        POST + b"x\0y: z\r\n\r\n" + SMUGGLED,
        POST + b": nameless\r\n\r\n" + SMUGGLED,
        POST + b"host: other\r\n\r\n" + SMUGGLED,
        POST.replace(b"\r\n", b"\n") + b"\n" + SMUGGLED,
        CHUNKED + b"fffffffffffffffff\r\n" + SMUGGLED,
        CHUNKED + b"-1\r\n" + SMUGGLED,
        CHUNKED + b"+1\r\na\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b"0x1\r\na\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b" 1\r\na\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b"1 \r\na\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b"1\na\n0\n\n" + SMUGGLED,
        CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b'1;a="\r\na\r\n0\r\n\r\n' + SMUGGLED,
        CHUNKED + b"1\r\nab\r\n0\r\n\r\n" + SMUGGLED,
        CHUNKED + b"1\r\na0\r\n\r\n" + SMUGGLED,
        CHUNKED + b"0\r\ncontent-length: 5\r\nx: y\r\n\r\n" + SMUGGLED,
        CHUNKED + b"0\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n" + SMUGGLED,
        POST.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        POST.replace(b"1.1", b"2.0") + b"content-length: 0\r\n\r\n" + SMUGGLED,
        POST.replace(b"1.1", b"0.9") + b"content-length: 0\r\n\r\n" + SMUGGLED,
        POST.replace(b"1.1", b"1.2") + b"content-length: 0\r\n\r\n" + SMUGGLED,
        POST.replace(b"POST", b"P\0ST") + b"\r\n" + SMUGGLED,
        POST.replace(b"POST", b"CONNECT") + b"content-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        b"CONNECT /ready HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n" + SMUGGLED,
        b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n" + SMUGGLED,
        b"GET /invoke/mirror\r\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SMUGGLED,
        GET.replace(b"mirror", b"mirror\0") + b"\r\n" + SMUGGLED,
        GET.replace(b"mirror", b"mirror\xff\xfe") + b"\r\n" + SMUGGLED,
        GET.replace(b"mirror", b"mir ror") + b"\r\n" + SMUGGLED,
        GET.replace(b"/invoke", b"invoke") + b"\r\n" + SMUGGLED,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_run(platform, request_bytes):
    answers = exchange(platform, request_bytes)
    assert answers.startswith(b"HTTP/1.1 400 "), answers
    assert answers.count(b"HTTP/1.1 ") == 1, answers


def test_no_smuggled_request_was_run(platform, mirror):
    seen = platform.client.post(mirror).json()["seen"]
    assert not [each for each in seen if "smuggled" in each]


def test_a_head_may_not_be_large_or_endless(platform, mirror):
    for data in (
        GET + b"x: " + b"a" * 100_000,
        GET + b"x: y\r\n" * 1000 + b"\r\n",
        b"GET /" + b"a" * 100_000,
        b"A" * 100_000,
        GET + b"\r\n".join(b"x-%d: y" % n for n in range(200)) + b"\r\n\r\n",
        CHUNKED + b"0\r\nx: " + b"a" * 1_000_000,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 200_000,
        CHUNKED + b"1;" + b"a" * 1_000_000,
    ):
        answers = exchange(platform, data)
        assert answers[9:12] in (b"431", b"400"), (data[-80:], answers)
        assert answers.count(b"HTTP/1.1 ") == 1


def test_a_client_cannot_speak_as_the_platform(platform, mirror):
    """Headers by which the parts of the platform trust each other, in the head or behind the body, mean nothing."""
    forged = [
        b"x-martlet-key: forged",
        b"X-Martlet-Scopes: admin",
        b"x-martlet-revision: neighbour@1",
        b"x-faas-function: forged",
        b"X-FaaS-Deadline: 99999999",
        b"x-faas-revision: forged",
        b"x-forwarded-proto: forged",
        b"connection: x-request-id, x-faas-function, authorization, x-forwarded-for",
        b"proxy-authorization: forged",
        b"keep-alive: forged",
        b"te: forged",
    ]
    with Wire(platform.port) as wire:
        wire.send(post(mirror, b"", *forged))
        headers = json.loads(wire.response()[2])["headers"]
        wire.send(CHUNKED + b"0\r\n" + b"\r\n".join([*forged, b"x-trailer: forged", b"a: b"]) + b"\r\n\r\n")
        behind = json.loads(wire.response()[2])["headers"]
    for found in (dict(headers), dict(behind)):
        assert "forged" not in str(found)
        assert found["x-faas-function"] == "mirror"
        assert found["x-forwarded-for"].endswith("127.0.0.1")
        assert found["x-request-id"]
        assert "authorization" not in found


def test_a_request_for_management_cannot_speak_as_the_gateway(platform):
    forged = [
        b"x-martlet-key: forged",
        b"x-martlet-scopes: invoke,manage,admin",
        b"x-martlet-functions: neighbour",
        b"x_martlet_scopes: admin",
    ]
    with Wire(platform.port) as wire:
        for authorization, status in ((b"", 401), (b"authorization: Bearer demo-key\r\n", 403)):
            wire.send(
                b"GET /keys HTTP/1.1\r\nhost: a\r\n" + authorization + b"\r\n".join(forged) + b"\r\n\r\n"
            )
            assert wire.response()[0] == status
        trailers = b"authorization: Bearer admin-key\r\n" + b"\r\n".join(forged) + b"\r\na: b\r\n\r\n"
        wire.send(b"POST /keys HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers)
        assert wire.response()[0] == 401


@pytest.mark.parametrize(
    "path",
    [
        "/_node/health",
        "/_node/instances",
        "//_node/health",
        "/./_node/health",
        "/x/../_node/health",
        "/%5fnode/health",
        "/%2f_node/health",
        "/health/../_node/health",
        "/functions/../_node/health",
        "/ready/../keys",
        "/ready/%2e%2e/keys",
        "/ready//keys",
        "/functions//mirror/../../keys",
        "/KEYS",
        "/keys/../functions",
        "/\\_node/health",
        "http://localhost/_node/health",
        "http://localhost//_node/health",
        "http://lane-0.sock/_node/health",
        "http://x?/_node/health",
        "/openapi.json/../keys",
        "/_martlet/specialise",
        "/internal",
    ],
)
def test_no_path_leads_to_the_inside(platform, path):
    """With the key of a stranger who may invoke and manage, but not administer."""
    with Wire(platform.port) as wire:
        for method in (b"GET", b"POST", b"DELETE"):
            wire.send(b"%b %b HTTP/1.1\r\n%bcontent-length: 0\r\n\r\n" % (method, path.encode(), KEY))
            status, _, body = wire.response()
            assert status in (400, 401, 403, 404, 405), body
            assert b'"lane"' not in body


def test_the_runtimes_own_paths_are_no_way_to_change_what_an_instance_is(platform, mirror):
    document = {"function": "evil", "revision": 1, "code": "/tmp", "handler": "evil", "environment": {}}
    for target in ("/_martlet/specialise", "//_martlet/specialise", "/%5fmartlet/specialise"):
        for root in (mirror, "/functions/mirror"):
            assert "mode" not in platform.client.post(f"{root}{target}", json=document).text
    assert platform.client.post(mirror).json()["path"] == "/"


def test_slow_clients_are_dropped_and_nobody_waits_for_them(platform):
    with undisturbed(platform):
        slow = [Wire(platform.port) for _ in range(100)]
        for number, wire in enumerate(slow):
            wire.send((GET, POST + b"content-length: 1000\r\n\r\n", CHUNKED + b"5\r\n", b"G")[number % 4])
        dripping = [Wire(platform.port) for _ in range(4)]
        for wire in dripping:
            wire.send(GET)
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            for wire in dripping:
                wire.send(b"x: y\r\n")
            time.sleep(0.1)
        for wire in [*slow, *dripping]:
            assert wire.rest()[9:12] in (b"408", b""), "a slow client is still there"
            wire.socket.close()


def test_a_client_that_reads_nothing_costs_little_and_is_dropped(platform, hostile):
    hostile("answering", name="unread", timeout=60)
    body = json.dumps({"attempt": "flood", "arguments": ["HTTP/1.1 200 OK\r\n\r\n", "a" * 65536, 10_000]})
    with bounded_memory(platform), undisturbed(platform), Wire(platform.port) as wire:
        wire.send(post("/invoke/unread", body.encode()))
        until(lambda: is_busy(platform, "unread"), why="it did not begin")
        until(
            lambda: not is_busy(platform, "unread"),
            why="it still writes for somebody who does not read",
        )


def is_busy(platform, function):
    return any(instance["state"] == "busy" for instance in platform.instances(function))


@pytest.mark.parametrize("path", ["/health", "/invoke/mirror", "/ready"])
def test_what_follows_a_request_for_an_upgrade_is_not_gathered_without_bound(platform, path):
    upgrade = b"GET %b HTTP/1.1\r\n%bconnection: upgrade\r\nupgrade: websocket\r\n\r\n" % (path.encode(), KEY)
    with bounded_memory(platform), Wire(platform.port) as wire:
        wire.send(upgrade)
        for _ in range(200):
            wire.send(bytes(1024 * 1024))
        answers = wire.rest()
    assert answers.count(b"HTTP/1.1 ") <= 1


def test_thousands_of_connections_are_held(platform):
    with undisturbed(platform), bounded_memory(platform):
        idle = [Wire(platform.port) for _ in range(1500)]
        finishing = idle[::100]
        for wire in set(idle) - set(finishing):
            wire.send(b"GET /hea")
        for wire in finishing:  # at once: it has two seconds from its first byte on
            wire.send(b"GET /hea")
            wire.send(b"lth HTTP/1.1\r\nhost: a\r\n\r\n")
            assert wire.response()[0] == 200
        for wire in idle:
            wire.socket.close()
            wire.__exit__(None, None, None)


def test_many_requests_in_one_write_are_answered_one_after_the_other(platform, mirror):
    with undisturbed(platform), Wire(platform.port) as wire:
        wire.send(b"".join(post(mirror, b"%d" % n) for n in range(300)))
        assert [json.loads(wire.response()[2])["body"] for _ in range(300)] == [str(n) for n in range(300)]
