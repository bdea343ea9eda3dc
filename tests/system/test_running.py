"""How functions run: contracts of handlers, scaling, streaming, what is remembered."""

import json
import socket
import threading
import time

import pytest
from websockets.sync.client import connect

from tests.system.conftest import plain_client, until

ECHO = """
def handle(request):
    return {
        "method": request.method, "path": request.path, "query": request.query_params,
        "headers": dict(request.headers), "body": request.get_text(),
    }
"""


@pytest.fixture(scope="module")
def echo(platform):
    platform.deploy("echo", ECHO)
    return platform.client


def test_everything_of_a_request_arrives(echo):
    response = echo.put(
        "/invoke/echo/a/b%20c?x=1&y=%C3%A4", content="héllo".encode(), headers={"x-mine": "1"}
    )
    seen = response.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("PUT", "/a/b c", "héllo")
    assert seen["query"] == {"x": "1", "y": "ä"}
    assert seen["headers"]["x-mine"] == "1"
    assert seen["headers"]["x-request-id"] == response.headers["x-request-id"]
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"


def test_the_key_and_the_platforms_own_headers_never_reach_the_function(echo):
    seen = echo.post("/invoke/echo", headers={"x-martlet-key": "forged", "x-faas-function": "forged"}).json()
    assert "authorization" not in seen["headers"]
    assert "x-martlet-key" not in seen["headers"]
    assert seen["headers"]["x-faas-function"] == "echo"


def test_a_function_is_reached_by_path_by_its_root_and_by_host(echo, platform):
    assert echo.get("/functions/echo/some/path").json()["path"] == "/some/path"
    assert echo.get("/functions/echo/").json()["path"] == "/"
    assert echo.get("/x", headers={"host": f"echo.localhost:{platform.port}"}).json()["path"] == "/x"
    assert echo.get("/invoke/echo?q=1").json()["query"] == {"q": "1"}


def test_a_function_is_told_where_its_root_is(echo, platform):
    def root(path, **headers):
        return echo.get(path, headers=headers).json()["headers"]["x-forwarded-prefix"]

    assert (
        root("/invoke/echo")
        == root("/invoke/echo/a?x=/invoke/echo")
        == root("/invoke/echo?a/b")
        == "/invoke/echo"
    )
    assert root("/functions/echo/a/b") == "/functions/echo"
    assert root("/a", host=f"echo.localhost:{platform.port}") == ""
    assert root("/invoke/echo/a", **{"x-forwarded-prefix": "/faas"}) == "/faas/invoke/echo"


def test_a_given_request_id_is_kept_and_a_strange_one_replaced(echo):
    assert echo.post("/invoke/echo", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert echo.post("/invoke/echo", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_a_cold_start_explains_itself(platform):
    platform.deploy("cold", "def handle(r):\n    return 1\n")
    for instance in platform.instances("cold"):
        assert platform.client.delete(f"/instances/{instance['id']}").status_code == 204
    until(lambda: not platform.instances("cold"))
    cold = platform.invoke("cold").headers["server-timing"]
    warm = platform.invoke("cold").headers["server-timing"]
    took = {part.split(";dur=")[0].strip(): float(part.split("=")[1]) for part in cold.split(",")}
    assert list(took) == ["queue", "cell", "load", "run"]
    assert took["cell"] > 0
    assert took["load"] > 0
    assert [part.split(";")[0].strip() for part in warm.split(",")] == ["queue", "run"]
    newest = platform.client.get("/functions/cold/invocations").json()
    assert [i["cold"] for i in newest[:2]] == [False, True]


def test_a_stream_arrives_piece_by_piece(platform):
    code = """
import time
def handle(request):
    def pieces():
        for n in range(3):
            yield f"data: {n}\\n\\n"
            time.sleep(0.3)
    return pieces(), 200, {"content-type": "text/event-stream"}
"""
    platform.deploy("streams", code)
    with platform.client.stream("GET", "/invoke/streams") as response:
        assert response.headers["content-type"] == "text/event-stream"
        arrivals = [(time.monotonic(), piece) for piece in response.iter_raw()]
    assert b"".join(piece for _, piece in arrivals) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert arrivals[-1][0] - arrivals[0][0] > 0.2


def test_a_client_that_leaves_a_stream_ends_it_and_the_instance_serves_on(platform):
    code = """
import time
def handle(request):
    if request.get_text() == "hello":
        return "hello"
    def endless():
        while True:
            yield b"x" * 1000
            time.sleep(0.01)
    return endless()
"""
    platform.deploy("endless", code, max_instances=1)
    with platform.client.stream("POST", "/invoke/endless") as response:
        next(response.iter_raw())
    assert platform.invoke("endless", content=b"hello").text == "hello"
    statuses = {i["status"] for i in platform.client.get("/functions/endless/invocations").json()}
    assert 499 in statuses


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
    elif scope["type"] == "http":
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        path = scope["path"].removeprefix(scope["root_path"])
        await send({"type": "http.response.body", "body": f"{path} {size}".encode()})
"""


def test_an_asgi_application_serves_http_and_websockets(platform):
    platform.deploy("asgi", ASGI, handler="app", concurrency=10)
    assert platform.invoke("asgi/path", content=bytes(100_000)).text == "/path 100000"
    url = platform.url.replace("http", "ws") + "/invoke/asgi/ws"
    with connect(url, additional_headers={"authorization": f"Bearer {platform.key}"}, proxy=None) as socket:
        for word in ("one", "two"):
            socket.send(word)
            assert socket.recv() == word.upper()


def test_a_wsgi_application_serves(platform):
    code = """
def app(environ, start_response):
    start_response("201 Created", [("content-type", "text/plain"), ("x-mine", "1")])
    return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]
"""
    platform.deploy("wsgi", code, handler="app")
    response = platform.invoke("wsgi/a", content=b"body")
    assert (response.status_code, response.text, response.headers["x-mine"]) == (201, "/abody", "1")


def test_async_handlers_overlap_within_one_instance(platform):
    code = """
import asyncio
running, all_run = 0, asyncio.Event()
async def handle(request):
    global running
    running += 1
    if running == 20:
        all_run.set()
    await all_run.wait()
"""
    platform.deploy("overlaps", code, concurrency=20, max_instances=1, timeout=60)
    answers = together(lambda: platform.invoke("overlaps").status_code, 20)
    assert len(set(answers)) == 1, answers
    assert answers[0] < 300
    assert len(platform.instances("overlaps")) == 1


def together(work, count):
    """Runs ``work`` in threads at once; returns what each returned."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_slow_function_gets_more_instances_and_never_more_than_its_maximum(platform):
    platform.deploy(
        "widens", "import time\ndef handle(r):\n    time.sleep(0.4)\n    return 1\n", max_instances=3
    )
    highest = 0
    done = threading.Event()

    def watch():
        nonlocal highest
        while not done.is_set():
            highest = max(highest, len(platform.instances("widens")))

    watcher = threading.Thread(target=watch)
    watcher.start()

    def call():
        with plain_client(platform.url, headers={"authorization": "Bearer demo-key"}) as client:
            return client.post("/invoke/widens", timeout=60).status_code

    assert together(call, 24) == [200] * 24
    done.set()
    watcher.join()
    assert 2 <= highest <= 3


def test_an_idle_function_scales_to_zero_and_back(platform):
    platform.deploy("sleepy", "def handle(r):\n    return 1\n", idle_ttl=0.5)
    assert platform.invoke("sleepy").status_code == 200
    until(lambda: not platform.instances("sleepy"), why="the idle instance lives on")
    assert platform.invoke("sleepy").status_code == 200


@pytest.mark.parametrize("replaced", [False, True])
def test_what_is_to_be_done_at_its_end_is_done_and_in_the_log(platform, replaced):
    name = f"ends-{replaced}".lower()
    platform.deploy(name, "import atexit\natexit.register(print, 'over')\ndef handle(r): return 1")
    assert platform.invoke(name).json() == 1
    (instance,) = platform.instances(name)

    if replaced:
        platform.deploy(name, "def handle(r): return 2")
    else:
        assert platform.admin.delete(f"/instances/{instance['id']}").is_success

    def said():
        lines = platform.client.get(f"/functions/{name}/logs").json()
        return [line for line in lines if (line["message"], line["instance"]) == ("over", instance["id"])]

    until(said, why="what was to be done at its end was not done")


def test_min_instances_are_kept_ready_and_replaced(platform):
    platform.deploy("ready", "def handle(r):\n    return 1\n", min_instances=3, idle_ttl=0)
    until(lambda: len(platform.instances("ready")) == 3, why="there are not 3 instances")
    gone = platform.instances("ready")[0]["id"]
    platform.client.delete(f"/instances/{gone}")
    until(
        lambda: (ids := {i["id"] for i in platform.instances("ready")}) and len(ids) == 3 and gone not in ids,
        why="the instance was not replaced",
    )
    platform.client.delete("/functions/ready")
    until(lambda: not platform.instances("ready"), why="a deleted function's instances live on")


def test_prints_and_logging_are_kept_by_request(platform):
    code = """
import logging, os, subprocess, sys
def handle(request):
    print("printed", request.get_text())
    print("to stderr", file=sys.stderr)
    logging.getLogger("mine").warning("careful")
    os.write(1, b"raw\\n")
    return 1
"""
    platform.deploy("talks", code)
    ids = [platform.invoke("talks", content=word).headers["x-request-id"] for word in (b"one", b"two")]

    def lines():
        found = platform.client.get("/functions/talks/logs", params={"request_id": ids[0]}).json()
        return found if len(found) >= 4 else None

    seen = {(line["stream"], line["message"]) for line in until(lines, why="the log is not complete")}
    assert {("stdout", "printed one"), ("stderr", "to stderr"), ("stdout", "raw")} <= seen
    assert any(stream == "warning" and "careful" in message for stream, message in seen)
    assert not any("two" in message for _, message in seen)


def test_logs_are_followed_live(platform):
    platform.deploy("follows", "def handle(r):\n    print('live', r.get_text())\n    return 1\n")
    got = threading.Event()

    def follow():
        with platform.client.stream("GET", "/functions/follows/logs", params={"follow": 1}) as response:
            for line in response.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["message"] == "live 7":
                    got.set()
                    return

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    deadline = time.monotonic() + 60
    while not got.is_set() and time.monotonic() < deadline:
        platform.invoke("follows", content=b"7")
        got.wait(0.2)
    assert got.is_set()
    follower.join(5)


def test_stats_count_what_happened(platform):
    platform.deploy("counted", "def handle(r):\n    return 1 // int(r.get_text())\n")
    for body in (b"1", b"1", b"0"):
        platform.invoke("counted", content=body)
    stats = platform.client.get("/stats/functions/counted").json()
    assert stats["requests"] == 3
    assert stats["statuses"] == {"2xx": 2, "5xx": 1}
    assert stats["errors"] == {"function_error": 1}
    assert stats["latency_ms"]["p50"] > 0
    metrics = platform.client.get("/metrics").text
    assert 'martlet_requests_total{code="200",function="counted"} 2.0' in metrics or (
        'martlet_requests_total{function="counted",code="200"} 2.0' in metrics
    )


def test_a_public_function_needs_no_key(platform):
    platform.deploy(
        "open", "def handle(r):\n    return r.get_header('authorization') or 'none'\n", public=True
    )
    anonymous = platform.client_for(None)
    assert anonymous.post("/invoke/open").text == "none"
    assert anonymous.post("/invoke/open", headers={"authorization": "Basic abc"}).text == "Basic abc"
    assert platform.invoke("open").text == "none", "a key of ours reached the function"
    assert anonymous.get("/functions/open").status_code == 401


def test_environment_reaches_the_function_and_the_platforms_does_not(platform):
    code = "import os\ndef handle(r):\n    return dict(os.environ)\n"
    platform.deploy("env", code, environment={"GREETING": "hé\nllo", "NUMBER": 7})
    seen = platform.invoke("env").json()
    assert (seen["GREETING"], seen["NUMBER"]) == ("hé\nllo", "7")
    assert not {"MARTLET_SETTINGS", "MARTLET_PARENT", "VIRTUAL_ENV", "PYTHONPATH"} & seen.keys()


def test_keys_rotate_with_overlap_expire_and_are_revoked_at_once(platform):
    platform.deploy("locked", "def handle(r):\n    return 1\n")
    made = platform.admin.post("/keys", json={"name": "k", "scopes": ["invoke"]}).json()
    old = platform.client_for(made["secret"])
    assert old.post("/invoke/locked").status_code == 200
    rotated = platform.admin.post(f"/keys/{made['id']}/rotate", json={"overlap": 60}).json()
    new = platform.client_for(rotated["secret"])
    assert old.post("/invoke/locked").status_code == new.post("/invoke/locked").status_code == 200
    old = new
    rotated = platform.admin.post(f"/keys/{made['id']}/rotate", json={"overlap": 1}).json()
    new = platform.client_for(rotated["secret"])
    until(lambda: old.post("/invoke/locked").status_code == 401, why="the old secret still works")
    assert new.post("/invoke/locked").status_code == 200
    assert made["secret"] not in platform.admin.get("/keys").text
    assert platform.admin.delete(f"/keys/{made['id']}").status_code == 204
    assert new.post("/invoke/locked").status_code == 401


def test_large_bodies_stream_through_both_ways(platform):
    platform.deploy("large", "def handle(r):\n    return r.body\n", memory="256Mi")
    body = bytes(range(256)) * 40_000
    assert platform.invoke("large", content=body).content == body
    pieces = (body[i : i + 100_000] for i in range(0, len(body), 100_000))
    assert platform.invoke("large", content=pieces).content == body


def test_head_and_http_1_0_and_pipelines_work_end_to_end(platform):
    platform.deploy("plain", "def handle(r):\n    return 'hello'\n")
    head = platform.invoke("plain", method="HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")
    request = (
        f"GET /invoke/plain HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {platform.key}\r\n\r\n".encode()
    )
    with socket.create_connection(("127.0.0.1", platform.port)) as connection:
        connection.sendall(request * 5 + request.replace(b"HTTP/1.1", b"HTTP/1.0"))
        seen = b""
        while data := connection.recv(65536):
            seen += data
    assert seen.count(b"HTTP/1.1 200 OK") == 6
    assert seen.endswith(b"hello")
