"""ASGI and WSGI applications on the Python runtime."""

import json

import pytest

from tests.contract.python_shim import SECONDS, Shim, send_until_refused

RESPOND = (
    "async def respond(send, body, status=200, headers=()):\n"
    "    await send({'type': 'http.response.start', 'status': status, 'headers': headers})\n"
    "    await send({'type': 'http.response.body', 'body': body})\n"
)
ONLY_HTTP = "    if scope['type'] != 'http':\n        raise NotImplementedError\n"
FORWARDED = (
    b"x-forwarded-prefix: /functions/hello\r\nx-forwarded-for: 10.0.0.1, 10.0.0.2\r\n"
    b"x-forwarded-proto: https\r\nx-forwarded-host: example.com:8443\r\n"
)


def asgi(body: str, more: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import json, asyncio\n{RESPOND}{more}async def app(scope, receive, send):\n{ONLY_HTTP}{lines}"


def test_an_asgi_application_is_found_by_its_name_or_by_default(shim: Shim) -> None:
    answer = shim.specialise(asgi("await respond(send, b'hi')"))
    assert answer.json["mode"] == "asgi"
    assert shim.ask().text == "hi"


def test_asgi_scope(shim: Shim) -> None:
    shim.deploy(
        asgi(
            "scope = {k: v.decode() if isinstance(v, bytes) else v for k, v in scope.items() if k != 'state'}\n"
            "scope['headers'] = [[k.decode(), v.decode()] for k, v in scope['headers']]\n"
            "await respond(send, json.dumps(scope).encode())"
        ),
        "app",
    )
    with shim.raw() as connection:
        connection.sendall(
            b"PATCH /caf%C3%A9?a=%20b HTTP/1.1\r\nHost: inner\r\nX-Twice: 1\r\nx-twice: 2\r\n"
            + FORWARDED
            + b"connection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    scope = json.loads(answer.partition(b"\r\n\r\n")[2])
    headers = dict(map(tuple, scope.pop("headers")))
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "PATCH",
        "scheme": "https",
        "path": "/functions/hello/caf\u00e9",
        "raw_path": "/functions/hello/caf%C3%A9",
        "query_string": "a=%20b",
        "root_path": "/functions/hello",
        "client": ["10.0.0.2", 0],
        "server": ["example.com", 8443],
    }
    assert (headers["host"], headers["x-twice"]) == ("inner", "1, 2")


def test_asgi_request_bodies_stream_with_back_pressure(shim: Shim) -> None:
    gate = shim.code / "gate"
    shim.deploy(
        asgi(
            f"while not pathlib.Path('{gate}').exists():\n    await asyncio.sleep(0.002)\n"
            "size = pieces = 0\n"
            "while True:\n"
            "    event = await receive()\n"
            "    size += len(event['body'])\n"
            "    pieces += 1\n"
            "    if not event['more_body']:\n"
            "        break\n"
            "await respond(send, f'{size} {pieces > 10}'.encode())",
            "import pathlib\n",
        ),
        "app",
    )
    size = 8 * 1024 * 1024
    with shim.raw() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size)
        sent = send_until_refused(connection, bytes(size))
        assert sent < 2 * 1024 * 1024, "the whole body was taken although the application read none of it"
        gate.touch()
        connection.sendall(bytes(size - sent))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"\r\n\r\n%d True" % size)


def test_asgi_responses_stream(shim: Shim) -> None:
    gate = shim.code / "gate"
    shim.deploy(
        asgi(
            "await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "await send({'type': 'http.response.body', 'body': b'first', 'more_body': True})\n"
            f"while not pathlib.Path('{gate}').exists():\n    await asyncio.sleep(0.002)\n"
            "await send({'type': 'http.response.body', 'body': b'second', 'more_body': True})\n"
            "await send({'type': 'http.response.body'})",
            "import pathlib\n",
        ),
        "app",
    )
    with shim.client() as client:
        client.request("GET", "/")
        response = client.getresponse()
        assert response.read(5) == b"first"
        gate.touch()
        assert response.read() == b"second"
        assert client.ask().text == "firstsecond"


def test_an_asgi_response_waits_for_a_client_that_reads_slowly(shim: Shim) -> None:
    shim.deploy(
        asgi(
            "await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "for n in range(200):\n"
            "    await send({'type': 'http.response.body', 'body': bytes(65536), 'more_body': True})\n"
            "    sent.append(n)\n"
            "await send({'type': 'http.response.body'})",
            "sent = []\n",
        ).replace(
            "    if scope['type']",
            "    if scope.get('path') == '/sent':\n"
            "        return await respond(send, str(len(sent)).encode())\n    if scope['type']",
        ),
        "app",
        concurrency=2,
    )
    with shim.client() as slow, shim.client() as other:
        slow.request("GET", "/")
        slow.getresponse().read(1)
        counts = [int(other.ask(target="/sent").text) for _ in range(50)]
        assert counts[-1] < 100


def test_asgi_content_length_is_kept(shim: Shim) -> None:
    shim.deploy(
        asgi(
            "await respond(send, b'' if scope['method'] == 'HEAD' else b'abc', 200, [(b'content-length', b'3')])"
        )
    )
    with shim.client() as client:
        assert client.ask("HEAD").headers["content-length"] == "3"
        assert client.ask().text == "abc"


def test_asgi_application_hears_that_the_client_left(shim: Shim) -> None:
    shim.deploy(
        asgi("while (event := await receive())['type'] != 'http.disconnect':\n    pass\nprint('left')"), "app"
    )
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
    shim.logged(lambda frame: frame["m"] == "left")
    assert not [frame for frame in shim.frames() if frame["s"] == "error"]


def test_asgi_send_fails_when_the_client_left(shim: Shim) -> None:
    shim.deploy(
        asgi(
            "await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "try:\n"
            "    while True:\n"
            "        await send({'type': 'http.response.body', 'body': bytes(1000), 'more_body': True})\n"
            "except OSError:\n"
            "    print('left')\n"
            "    raise RuntimeError('a framework would raise its own')"
        ),
        "app",
    )
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(10)
    shim.logged(lambda frame: frame["m"] == "left")
    assert shim.ask(target="/_martlet/health").status == 200
    assert not [frame for frame in shim.frames() if frame["s"] == "error"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise KeyError('x')", "KeyError"),
        ("return", "RuntimeError"),
        ("await send({'type': 'http.response.body', 'body': b''})", "RuntimeError"),
        ("await send({'type': 'nonsense'})", "RuntimeError"),
        (
            "await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'a b', b'c')]})",
            "ValueError",
        ),
        ("await respond(send, b'too long', 200, [(b'content-length', b'2')])", "ValueError"),
        ("await respond(send, b'short', 200, [(b'content-length', b'9')])", "ValueError"),
    ],
)
def test_an_asgi_application_that_fails_before_it_answers_is_a_500(shim: Shim, body: str, kind: str) -> None:
    shim.deploy(asgi(body), "app")
    with shim.client() as client:
        for _ in range(2):
            answer = client.ask()
            assert (answer.status, answer.headers["x-martlet-error"]) == (500, kind)


def test_an_asgi_application_that_answered_and_then_raised_is_logged(shim: Shim) -> None:
    shim.deploy(asgi("await respond(send, b'sorry', 500)\nraise KeyError('x')"), "app")
    with shim.client() as client:
        assert [client.ask().text for _ in range(2)] == ["sorry", "sorry"]
    assert "KeyError" in shim.logged(lambda frame: frame["s"] == "error")["m"]


def test_a_malformed_body_is_400_to_an_asgi_application_too(shim: Shim) -> None:
    shim.deploy(asgi("event = await receive()\nassert event['type'] == 'http.disconnect'"), "app")
    with shim.raw() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_the_application_did_not_read_is_not_in_the_way_of_the_next_request(shim: Shim) -> None:
    shim.deploy(asgi("await respond(send, scope['path'].encode())"), "app")
    with shim.raw() as connection:
        connection.sendall(b"POST /one HTTP/1.1\r\ncontent-length: 100000\r\n\r\n")
        assert connection.recv(1000).endswith(b"/one")
        connection.sendall(bytes(100_000) + b"GET /two HTTP/1.1\r\n\r\n")
        assert connection.recv(1000).endswith(b"/two")


LIFESPAN = (
    "async def app(scope, receive, send):\n"
    "    if scope['type'] == 'lifespan':\n"
    "        assert (await receive())['type'] == 'lifespan.startup'\n"
    "        scope['state']['greeting'] = 'hello'\n"
    "        await send({'type': 'lifespan.startup.complete'})\n"
    "        assert (await receive())['type'] == 'lifespan.shutdown'\n"
    "        print('shut down')\n"
    "        await send({'type': 'lifespan.shutdown.complete'})\n"
    "    else:\n"
    "        await respond(send, scope['state']['greeting'].encode())\n"
)


def test_the_lifespan_surrounds_the_requests(shim: Shim) -> None:
    shim.deploy(RESPOND + LIFESPAN, "app")
    assert shim.ask().text == "hello"
    shim.process.terminate()
    shim.logged(lambda frame: frame["m"] == "shut down")
    assert shim.process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [
        ("", "StartupFailed", "no database"),
        ("        raise OSError('unreachable')\n", "OSError", "unreachable"),
    ],
)
def test_a_start_up_that_fails_is_a_failure_to_load(shim: Shim, end: str, kind: str, message: str) -> None:
    answer = shim.specialise(
        "async def app(scope, receive, send):\n    if scope['type'] == 'lifespan':\n"
        f"        await send({{'type': 'lifespan.startup.failed', 'message': 'no database'}})\n{end}",
        "app",
    )
    assert answer.status == 422
    assert (answer.json["error"]["type"], answer.json["error"]["message"]) == (kind, message)


def wsgi(body: str) -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import json\ndef application(environ, start_response):\n{lines}"


def test_a_wsgi_application_is_found_by_default(shim: Shim) -> None:
    answer = shim.specialise(wsgi("start_response('200 OK', [])\nreturn [b'a', b'b']"))
    assert answer.json["mode"] == "wsgi"
    answer = shim.ask()
    assert (answer.text, answer.headers["content-length"]) == ("ab", "2")


def test_wsgi_environ(shim: Shim) -> None:
    shim.deploy(
        wsgi(
            "environ['body'] = environ['wsgi.input'].read(3).decode() + environ['wsgi.input'].readline().decode()\n"
            "environ['wsgi.errors'].write('to the log\\n')\n"
            "start_response('200 OK', [('content-type', 'application/json')])\n"
            "return [json.dumps({k: v for k, v in environ.items() if not hasattr(v, 'write')}).encode()]"
        )
    )
    with shim.raw() as connection:
        connection.sendall(
            b"POST /caf%C3%A9?a=%20b HTTP/1.1\r\nHost: inner\r\nContent-Type: text/x\r\n"
            b"X-Name: v\r\nx_name: spoofed\r\n"
            + FORWARDED
            + b"connection: close\r\ncontent-length: 7\r\n\r\nab\ncd\ne"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    environ = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert {
        name: environ[name] for name in environ if name.isupper() and not name.startswith("HTTP_X_FORW")
    } == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/functions/hello",
        "PATH_INFO": "/caf\u00c3\u00a9",
        "QUERY_STRING": "a=%20b",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "7",
        "SERVER_NAME": "example.com",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.2",
        "HTTP_HOST": "inner",
        "HTTP_X_NAME": "v",
        "HTTP_CONNECTION": "close",
    }
    assert environ["body"] == "ab\ncd\n"
    assert (environ["wsgi.url_scheme"], environ["wsgi.multithread"]) == ("https", False)
    assert shim.logged(lambda frame: frame["s"] == "stderr")["m"] == "to the log"


def test_wsgi_write_and_iteration_are_streamed_in_order_and_closed(shim: Shim) -> None:
    shim.deploy(
        "class Body:\n"
        "    def __iter__(self):\n        return iter([b'', b'two ', b'three'])\n"
        "    def close(self):\n        print('closed')\n"
        "def application(environ, start_response):\n"
        "    write = start_response('201 Created', [('x-a', 'b')])\n"
        "    write(b'one ')\n    return Body()"
    )
    answer = shim.ask()
    assert (answer.status, answer.text, answer.headers["transfer-encoding"]) == (
        201,
        "one two three",
        "chunked",
    )
    shim.logged(lambda frame: frame["m"] == "closed")


def test_wsgi_start_response_may_change_its_mind_about_an_error(shim: Shim) -> None:
    shim.deploy(
        wsgi(
            "import sys\nstart_response('200 OK', [])\n"
            "try:\n    raise KeyError\nexcept KeyError:\n    start_response('503 Busy', [], sys.exc_info())\n"
            "return [b'busy']"
        )
    )
    assert shim.ask().status == 503


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise KeyError('x')", "KeyError"),
        ("return [b'x']", "RuntimeError"),
        ("start_response('200 OK', [])\nstart_response('200 OK', [])", "RuntimeError"),
        ("start_response('200 OK', [])\nreturn ['text']", "TypeError"),
        ("return {'status': 200}", "TypeError"),
        ("start_response('200 OK', [('a', 'b\\nc')])", "ValueError"),
        ("start_response('200 OK', [('content-length', '9')])\nreturn [b'x']", "ValueError"),
    ],
)
def test_a_wsgi_application_that_fails_before_it_answers_is_a_500(shim: Shim, body: str, kind: str) -> None:
    shim.deploy(wsgi(body))
    with shim.client() as client:
        for _ in range(2):
            answer = client.ask()
            assert (answer.status, answer.headers["x-martlet-error"]) == (500, kind)


def test_a_wsgi_application_that_fails_in_the_middle_cuts_the_connection(shim: Shim) -> None:
    shim.deploy(wsgi("start_response('200 OK', [])\nyield b'first'\nraise KeyError('x')"))
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(65536), b"")).endswith(b"5\r\nfirst\r\n")
    assert "KeyError" in shim.logged(lambda frame: frame["s"] == "error")["m"]


def test_a_wsgi_head_request_keeps_the_length_it_was_told(shim: Shim) -> None:
    shim.deploy(wsgi("start_response('200 OK', [('Content-Length', '5')])\nreturn [b'']"))
    with shim.client() as client:
        assert client.ask("HEAD").headers["content-length"] == "5"


def test_wsgi_requests_run_in_threads_when_there_is_concurrency(shim: Shim) -> None:
    shim.deploy(
        "import threading\nbarrier = threading.Barrier(2)\n"
        "def application(environ, start_response):\n    barrier.wait(60)\n    start_response('200 OK', [])\n"
        "    return [str(environ['wsgi.multithread']).encode()]",
        concurrency=2,
    )
    with shim.client() as one, shim.client() as two:
        one.request("GET", "/")
        two.request("GET", "/")
        assert one.getresponse().read() == two.getresponse().read() == b"True"
