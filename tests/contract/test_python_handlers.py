"""What a Python handler may be, what it is given, what it may return, and what happens when it fails."""

import json
import sys

import pytest

from tests.contract.python_shim import SECONDS, Shim

KINDS = pytest.mark.parametrize("define", ["def", "async def"], ids=["sync", "async"])


@pytest.mark.parametrize(
    ("returned", "status", "content_type", "body"),
    [
        ("{'a': [1, None]}", 200, "application/json", b'{"a":[1,null]}'),
        ("['\u00e9']", 200, "application/json", '["\u00e9"]'.encode()),
        ("True", 200, "application/json", b"true"),
        ("1.5", 200, "application/json", b"1.5"),
        ("'\u00e9'", 200, "text/plain; charset=utf-8", "\u00e9".encode()),
        ("b'\\xff'", 200, "application/octet-stream", b"\xff"),
        ("bytearray(b'x')", 200, "application/octet-stream", b"x"),
        ("None", 204, None, b""),
        ("(None, 404)", 404, None, b""),
        ("({'a': 1}, 201)", 201, "application/json", b'{"a":1}'),
        ("('<p>', 200, {'Content-Type': 'text/html'})", 200, "text/html", b"<p>"),
        ("('x', http.HTTPStatus.ACCEPTED, {})", 202, "text/plain; charset=utf-8", b"x"),
        ("('gone', 204)", 204, "text/plain; charset=utf-8", b""),
    ],
)
@KINDS
def test_what_is_returned_becomes_the_response(
    shim: Shim, define: str, returned: str, status: int, content_type: str | None, body: bytes
) -> None:
    shim.deploy(f"import http\n{define} handle(request):\n    return {returned}")
    answer = shim.ask()
    assert (answer.status, answer.headers["content-type"], answer.body) == (status, content_type, body)


def test_headers_may_be_repeated_and_framing_is_not_the_handlers_business(shim: Shim) -> None:
    shim.deploy(
        "def handle(request):\n"
        "    return 'x', 200, [('Set-Cookie', 'a=1'), ('set-cookie', 'b=2'), ('Content-Length', '99'),\n"
        "                      ('Transfer-Encoding', 'chunked'), ('x-number', 7)]"
    )
    answer = shim.ask()
    assert answer.headers.get_all("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["x-number"] == "7"
    assert (answer.headers["content-length"], answer.body) == ("1", b"x")


def test_json_knows_what_python_people_use(shim: Shim) -> None:
    shim.deploy(
        "import datetime, decimal, uuid, dataclasses, enum, pathlib, types\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n    inner: object\n"
        "class Colour(enum.Enum):\n    RED = 'red'\n"
        "class Model:\n    def model_dump(self):\n        return {'kind': 'model'}\n"
        "def handle(request):\n"
        "    return {'when': datetime.datetime(2026, 1, 2, 3, 4, 5), 'day': datetime.date(2026, 1, 2),\n"
        "            'price': decimal.Decimal('1.10'), 'id': uuid.UUID(int=1), 'point': Point(1, {2}),\n"
        "            'colour': Colour.RED, 'raw': b'hi', 'path': pathlib.PurePath('/a'),\n"
        "            'map': types.MappingProxyType({'a': 1}), 'model': Model()}"
    )
    assert shim.ask().json == {
        "when": "2026-01-02T03:04:05",
        "day": "2026-01-02",
        "price": "1.10",
        "id": "00000000-0000-0000-0000-000000000001",
        "point": {"x": 1, "inner": [2]},
        "colour": "red",
        "raw": "aGk=",
        "path": "/a",
        "map": {"a": 1},
        "model": {"kind": "model"},
    }


@pytest.mark.parametrize(
    ("returned", "kind", "message"),
    [
        ("object()", "TypeError", "a value of type object cannot be sent as JSON"),
        ("float('nan')", "ValueError", "not JSON compliant"),
        ("loop", "RecursionError", "recursion"),
        ("('x', 99)", "ValueError", "99 is not an HTTP status"),
        ("('x', '200')", "ValueError", "'200' is not an HTTP status"),
        ("('x', 200, {}, 4)", "TypeError", "(body, status, headers)"),
        ("('x', 200, {'a': 'b\\r\\nc: d'})", "ValueError", "cannot be sent as a header"),
        ("('x', 200, {'a b': 'c'})", "ValueError", "cannot be sent as a header"),
        ("coroutine()", "TypeError", "`async def`"),
        ("generator()", "TypeError", "`async def`"),
        ("iter([1])", "TypeError", "int"),
    ],
)
def test_what_cannot_be_sent_is_an_error_that_says_why(
    shim: Shim, returned: str, kind: str, message: str
) -> None:
    shim.deploy(
        "loop = []\nloop.append(loop)\nasync def coroutine(): pass\nasync def generator(): yield 'x'\n"
        f"def handle(request):\n    return {returned}"
    )
    answer = shim.ask()
    assert (answer.status, answer.headers["x-martlet-error"]) == (500, kind)
    assert answer.json["type"] == kind
    assert message in answer.json["message"]


def test_the_request_says_what_was_sent(shim: Shim) -> None:
    shim.deploy(
        "def handle(request):\n"
        "    query = request.query_params\n"
        "    return {'method': request.method, 'path': request.path, 'query': query,\n"
        "            'all': query.get_all('tag'), 'none': query.get_all('other'),\n"
        "            'type': request.headers['CONTENT-TYPE'], 'twice': request.get_header('X-Twice'),\n"
        "            'missing': request.get_header('nope'), 'default': request.get_header('nope', 'd'),\n"
        "            'has': 'Content-Type' in request.headers, 'get': request.headers.get('Nope', 1),\n"
        "            'body': request.body.decode(), 'text': request.get_text(), 'json': request.get_json(),\n"
        "            'id': request.request_id, 'function': request.function, 'revision': request.revision,\n"
        "            'deadline': request.deadline_ms, 'left': 0 < request.remaining_ms <= 5000}"
    )
    with shim.raw() as connection:
        connection.sendall(
            b"PUT /caf%C3%A9/a%2Fb?tag=1&tag=2&empty=&s=a+b%21 HTTP/1.1\r\nContent-Type: application/json\r\n"
            b"x-twice: one\r\nX-TWICE: two\r\nx-request-id: R1\r\nx-faas-deadline: 5000\r\n"
            b"x-faas-function: hello\r\nx-faas-revision: 3\r\nconnection: close\r\ncontent-length: 7\r\n\r\n[1, 2]\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
        "method": "PUT",
        "path": "/caf\u00e9/a/b",
        "query": {"tag": "2", "empty": "", "s": "a b!"},
        "all": ["1", "2"],
        "none": [],
        "type": "application/json",
        "twice": "one, two",
        "missing": None,
        "default": "d",
        "has": True,
        "get": 1,
        "body": "[1, 2]\n",
        "text": "[1, 2]\n",
        "json": [1, 2],
        "id": "R1",
        "function": "hello",
        "revision": "3",
        "deadline": 5000,
        "left": True,
    }


def test_an_empty_body_is_an_empty_object(shim: Shim) -> None:
    shim.deploy("def handle(request):\n    return request.get_json().get('name', 'World')")
    assert shim.ask().text == "World"
    assert shim.ask("POST", "/", b'{"name": "you"}').text == "you"


def test_text_is_read_in_the_charset_that_was_sent(shim: Shim) -> None:
    shim.deploy("def handle(request):\n    return request.get_text()")
    assert shim.ask("POST", "/", b"\xe9", content_type="text/plain; charset=Latin-1").text == "\u00e9"
    assert shim.ask("POST", "/", b"\xe9", content_type="text/plain").text == "\ufffd"
    assert shim.ask("POST", "/", b"a", content_type="text/plain; charset=nonsense").text == "a"


@KINDS
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_json_is_the_clients_fault(shim: Shim, define: str, body: bytes) -> None:
    shim.deploy(f"{define} handle(request):\n    return request.get_json()")
    answer = shim.ask("POST", "/", body, x_request_id="r7")
    assert (answer.status, answer.json["code"]) == (400, "bad_json")
    assert answer.json["request_id"] == "r7"
    assert answer.headers["x-martlet-error"] is None
    assert shim.frames() == []


def test_a_handler_may_catch_that_a_body_is_not_json(shim: Shim) -> None:
    shim.deploy(
        "def handle(request):\n    try:\n        return request.get_json()\n"
        "    except ValueError as error:\n        return str(error), 422"
    )
    assert shim.ask("POST", "/", b"{").status == 422


@KINDS
def test_a_generator_is_streamed_as_it_goes(shim: Shim, define: str) -> None:
    gate = shim.code / "gate"
    shim.deploy(
        f"import time, pathlib\n{define} handle(request):\n    yield 'first '\n"
        f"    while not pathlib.Path('{gate}').exists():\n        time.sleep(0.002)\n"
        "    yield b'second'\n"
    )
    with shim.client() as client:
        client.request("GET", "/")
        response = client.getresponse()
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.read(6) == b"first "
        gate.touch()
        assert response.read() == b"second"
        assert client.ask().text == "first second"


def test_a_stream_may_have_status_and_headers(shim: Shim) -> None:
    shim.deploy(
        "def handle(request):\n    return (str(n) for n in range(3)), 201, {'content-type': 'text/csv'}"
    )
    answer = shim.ask()
    assert (answer.status, answer.headers["content-type"], answer.text) == (201, "text/csv", "012")


def test_an_async_handler_may_return_a_stream_of_either_kind(shim: Shim) -> None:
    shim.deploy(
        "async def pieces():\n    yield b'a'\n    yield b'b'\n"
        "async def handle(request):\n    return pieces() if request.path == '/async' else iter(['c', 'd'])"
    )
    answer = shim.ask(target="/async")
    assert (answer.headers["content-type"], answer.body) == ("application/octet-stream", b"ab")
    assert shim.ask(target="/").text == "cd"


@KINDS
def test_an_empty_stream_and_empty_pieces_are_fine(shim: Shim, define: str) -> None:
    shim.deploy(
        f"{define} handle(request):\n    if request.path == '/some':\n        yield ''\n        yield 'x'\n"
    )
    with shim.client() as client:
        assert client.ask(target="/none").body == b""
        assert client.ask(target="/some").body == b"x"


@KINDS
def test_a_head_request_of_a_stream_ends_it(shim: Shim, define: str) -> None:
    shim.deploy(f"{define} handle(request):\n    while True:\n        yield 'for ever'\n")
    with shim.client() as client:
        assert client.ask("HEAD").body == b""
        assert client.ask("HEAD").status == 200


@KINDS
def test_what_raises_before_the_first_piece_is_a_500(shim: Shim, define: str) -> None:
    shim.deploy(f"{define} handle(request):\n    raise KeyError('gone')\n    yield\n")
    answer = shim.ask()
    assert (answer.status, answer.headers["x-martlet-error"]) == (500, "KeyError")


@KINDS
def test_what_raises_later_cuts_the_connection_and_is_logged(shim: Shim, define: str) -> None:
    shim.deploy(f"{define} handle(request):\n    yield 'first'\n    raise KeyError('gone')\n")
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx-request-id: R1\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(b"5\r\nfirst\r\n")
    frame = shim.logged(lambda frame: frame["s"] == "error")
    assert frame["id"] == "R1"
    assert "KeyError: 'gone'" in frame["m"]
    assert shim.ask(target="/_martlet/health").status == 200


@KINDS
def test_a_stream_whose_client_left_is_closed(shim: Shim, define: str) -> None:
    shim.deploy(
        f"{define} handle(request):\n    try:\n        while True:\n            yield 'x' * 10000\n"
        "    finally:\n        print('closed')\n"
    )
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(10)
    shim.logged(lambda frame: frame["m"] == "closed")
    assert not [frame for frame in shim.frames() if frame["s"] == "error"]


def test_an_async_stream_that_waits_is_ended_when_its_client_leaves(shim: Shim) -> None:
    shim.deploy(
        "import asyncio\nasync def handle(request):\n    try:\n        yield 'first'\n"
        "        await asyncio.Event().wait()\n    finally:\n        print('closed')\n"
    )
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(10)
    shim.logged(lambda frame: frame["m"] == "closed")
    assert not [frame for frame in shim.frames() if frame["s"] == "error"]


@KINDS
def test_what_raises_is_a_500_and_the_process_lives(shim: Shim, define: str) -> None:
    shim.deploy(
        f"class Oops(Exception): pass\n{define} handle(request):\n    raise Oops('it \u00e9 broke')\n"
    )
    with shim.client() as client:
        for _ in range(2):
            answer = client.ask(headers={"x-request-id": "R1"})
            assert (answer.status, answer.headers["x-martlet-error"]) == (500, "Oops")
            assert answer.json == {"type": "Oops", "message": "it \u00e9 broke"}


def test_the_traceback_in_the_log_begins_in_the_users_code(shim: Shim) -> None:
    shim.deploy("def inner():\n    return 1 / 0\ndef handle(request):\n    return inner()\n")
    shim.ask(x_request_id="R7")
    frame = shim.logged(lambda frame: frame["s"] == "error")
    lines = frame["m"].splitlines()
    assert frame["id"] == "R7"
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{shim.code}/handler.py", line 4, in handle'
    assert lines[2] == "    return inner()"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "_martlet_python" not in frame["m"]


@KINDS
@pytest.mark.parametrize(
    "raised", ["SystemExit(3)", "KeyboardInterrupt()", "asyncio.CancelledError()", "GeneratorExit()"]
)
def test_not_even_exit_ends_the_process(shim: Shim, define: str, raised: str) -> None:
    shim.deploy(f"import asyncio\n{define} handle(request):\n    raise {raised}\n")
    for _ in range(2):
        answer = shim.ask()
        assert (answer.status, answer.json["type"]) == (500, raised.partition("(")[0].rpartition(".")[2])


def test_an_exception_that_cannot_say_its_message_is_reported_too(shim: Shim) -> None:
    shim.deploy(
        "class Mute(Exception):\n    def __str__(self):\n        raise ValueError\n"
        "def handle(request):\n    raise Mute"
    )
    assert shim.ask().json["type"] == "Mute"


def test_os_exit_is_a_crash(shim: Shim) -> None:
    shim.deploy("import os\ndef handle(request):\n    os._exit(7)")
    with shim.raw() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(100) == b""
    assert shim.process.wait(SECONDS) == 7


@pytest.mark.parametrize("names", [["handler"], ["main"], ["app"], ["function"], ["index"], ["anything"]])
def test_the_handler_is_found_in_the_usual_module_or_the_only_one(shim: Shim, names: list[str]) -> None:
    shim.deploy({f"{names[0]}.py": "def handle(request):\n    return __name__", "data.txt": ""})
    assert shim.ask().text == names[0]


def test_the_first_usual_module_wins(shim: Shim) -> None:
    code = "def handle(request):\n    return __name__"
    shim.deploy({"main.py": code, "app.py": code, "aaa.py": code})
    assert shim.ask().text == "main"


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        ("other.run", "other run"),
        ("other:run", "other run"),
        ("other:Tool.method", "other Tool.method"),
        ("pkg.inner.run", "pkg.inner run"),
        ("pkg.inner:run", "pkg.inner run"),
        ("run", "main run"),
    ],
)
def test_a_handler_may_name_its_module(shim: Shim, handler: str, expected: str) -> None:
    code = (
        "def run(request):\n    return f'{__name__} run'\n"
        "class Tool:\n    @staticmethod\n    def method(request):\n        return f'{__name__} Tool.method'\n"
    )
    shim.deploy({"main.py": code, "other.py": code, "pkg/__init__.py": "", "pkg/inner.py": code}, handler)
    assert shim.ask().text == expected


@pytest.mark.parametrize(
    "code",
    [
        "class Handler:\n    def __call__(self, request):\n        return 'ok'\nhandle = Handler()",
        "class Handler:\n    async def __call__(self, request):\n        return 'ok'\nhandle = Handler()",
        "import functools\ndef base(prefix, request):\n    return prefix\nhandle = functools.partial(base, 'ok')",
        "def handle(request, greeting='ok'):\n    return greeting",
        "def handle(*arguments):\n    return 'ok'",
        "import functools\ndef wrap(f):\n    @functools.wraps(f)\n    async def inner(*a):\n"
        "        return await f(*a)\n    return inner\n@wrap\nasync def handle(request):\n    return 'ok'",
    ],
    ids=["object", "async object", "partial", "optional argument", "any arguments", "decorated"],
)
def test_a_handler_may_be_anything_that_takes_the_request(shim: Shim, code: str) -> None:
    assert shim.deploy(code).ask().text == "ok"


@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        (
            {"handler.py": "def other(request): pass"},
            "handle",
            "HandlerNotFound",
            "handler.py has no 'handle'; it has other",
        ),
        ({"handler.py": "x = 1"}, "handle", "HandlerNotFound", "no function at all"),
        ({"a.py": "", "b.py": ""}, "handle", "HandlerNotFound", "the code has a.py, b.py"),
        (
            {"a.py": ""},
            "nowhere.handle",
            "HandlerNotFound",
            "names the module 'nowhere', and the code has a.py",
        ),
        ({"handler.py": "handle = 3"}, "handle", "NotAHandler", "of type int, which cannot be called"),
        ({"handler.py": "def handle(): pass"}, "handle", "NotAHandler", "takes 0 arguments"),
        ({"handler.py": "def handle(a, b, c, d): pass"}, "handle", "NotAHandler", "takes 4 arguments"),
        ({"handler.py": "import frobnicate"}, "handle", "ModuleNotFoundError", "add it to `dependencies`"),
        (
            {"handler.py": "import helper.x", "helper.py": ""},
            "handle",
            "ModuleNotFoundError",
            "not a package",
        ),
        ({"handler.py": "x = 1\ndef handle(:\n"}, "handle", "SyntaxError", "handler.py, line 2: "),
        ({"handler.py": "raise RuntimeError('at import')"}, "handle", "RuntimeError", "at import"),
        ({"handler.py": "import sys\nsys.exit(1)"}, "handle", "SystemExit", "1"),
    ],
)
def test_code_that_does_not_load_is_422_and_says_why(
    shim: Shim, files: dict[str, str], handler: str, kind: str, message: str
) -> None:
    answer = shim.specialise(files, handler)
    assert answer.status == 422
    error = answer.json["error"]
    assert error["type"] == kind
    assert message in error["message"]
    shim.logged(lambda frame: frame["s"] == "error")


def test_a_module_of_the_users_own_is_not_asked_for_as_a_dependency(shim: Shim) -> None:
    error = shim.specialise({"handler.py": "import helper.x", "helper.py": ""}).json["error"]
    assert "dependencies" not in error["message"]


def test_the_traceback_of_a_failed_load_shows_the_users_lines_only(shim: Shim) -> None:
    answer = shim.specialise({"handler.py": "import helper", "helper.py": "def boom():\n    1 / 0\nboom()"})
    traceback = answer.json["error"]["traceback"]
    assert [line for line in traceback.splitlines() if "File" in line] == [
        f'  File "{shim.code}/handler.py", line 1, in <module>',
        f'  File "{shim.code}/helper.py", line 3, in <module>',
        f'  File "{shim.code}/helper.py", line 2, in boom',
    ]


def test_a_syntax_error_shows_the_place(shim: Shim) -> None:
    error = shim.specialise("def handle(request):\n    return (\n").json["error"]
    assert error["message"] == "handler.py, line 2: '(' was never closed"
    assert "return (" in error["traceback"]


def test_the_process_is_the_functions_own(shim: Shim) -> None:
    shim.deploy(
        {
            "handler.py": (
                "import os, sys, signal\n"
                "def handle(request):\n"
                "    return {'environ': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path, 'argv': sys.argv,\n"
                "            'main': sorted(vars(sys.modules['__main__'])),\n"
                "            'strangers': [m for m in sys.modules if m.startswith(('martlet', 'shim'))],\n"
                "            'usr1': signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL,\n"
                "            'pipe': signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN}"
            )
        },
        environment={"API_KEY": "secret", "HOME": "/function"},
    )
    seen = shim.ask().json
    assert seen["environ"] == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/function",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "MARTLET_FUNCTION": "hello",
        "MARTLET_REVISION": "3",
        "API_KEY": "secret",
    }
    assert seen["cwd"] == seen["path"][0] == str(shim.code)
    assert all("martlet" not in path and "site-packages" not in path for path in seen["path"][1:])
    assert seen["argv"] == [f"{shim.code}/handler.py"]
    assert not [name for name in seen["main"] if not name.startswith("__")]
    assert seen["strangers"] == []
    assert seen["usr1"]
    assert seen["pipe"]


def test_dependencies_come_after_the_code_and_the_standard_library(shim: Shim, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("dependencies")
    (folder / "library.py").write_text("where = 'dependencies'")
    (folder / "shared.py").write_text("where = 'dependencies'")
    (folder / "typing.py").write_text("raise ImportError('a backport that nobody needs')")
    (folder / "linked").mkdir()
    (folder / "linked" / "by_pth.py").write_text("where = 'pth'")
    (folder / "extra.pth").write_text("linked\n")
    shim.deploy(
        {
            "handler.py": "import library, shared, typing, by_pth\n"
            "def handle(request):\n    return [library.where, shared.where, by_pth.where]",
            "shared.py": "where = 'code'",
        },
        dependencies=str(folder),
    )
    assert shim.ask().json == ["dependencies", "code", "pth"]


@pytest.mark.parametrize(
    "name", ["http", "asgi", "shim", "response", "logs", "martlet", "queue", "statistics", "json"]
)
def test_a_module_of_the_users_wins_over_any_other_of_its_name(shim: Shim, name: str) -> None:
    shim.deploy(
        {
            "handler.py": f"import {name}\ndef handle(request):\n    print('logged')\n"
            f"    return {{'mine': {name}.MINE}}",
            f"{name}.py": "MINE = True",
        }
    )
    assert shim.ask("POST", "/", b"{}").json == {"mine": True}
    shim.logged(lambda frame: frame["m"] == "logged")


def test_without_such_a_module_the_standard_library_is_found(shim: Shim) -> None:
    shim.deploy(
        "import http.client, queue, json, statistics\n"
        "def handle(request):\n    return [http.client.OK, statistics.mean([1, 3]), json.loads('1')]"
    )
    assert shim.ask().json == [200, 2, 1]


def test_a_folder_of_data_hides_no_module(shim: Shim) -> None:
    shim.deploy(
        {"handler.py": "import html\ndef handle(request):\n    return html.escape('<')", "html/a.txt": ""}
    )
    assert shim.ask().text == "&lt;"


def test_code_may_have_a_handler_of_a_dependency(shim: Shim, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("dependencies")
    (folder / "ready_made.py").write_text("def run(request):\n    return 'ready'")
    shim.deploy({"data.txt": ""}, "ready_made.run", dependencies=str(folder))
    assert shim.ask().text == "ready"


def test_nothing_is_written_beside_the_code(shim: Shim) -> None:
    shim.deploy({"handler.py": "import helper\ndef handle(request):\n    return 'x'", "helper.py": ""})
    assert sorted(path.name for path in shim.code.iterdir()) == ["handler.py", "helper.py"]


def test_children_report_how_they_ended(shim: Shim) -> None:
    shim.deploy(
        "import subprocess, sys\ndef handle(request):\n"
        f"    return subprocess.run([{sys.executable!r}, '-c', 'raise SystemExit(5)']).returncode"
    )
    assert shim.ask().json == 5


def test_the_interpreter_answers_while_a_thread_of_the_user_runs(shim: Shim) -> None:
    shim.deploy(
        "import threading\nevent = threading.Event()\nthreading.Thread(target=event.wait, daemon=True).start()\n"
        "def handle(request):\n    return 'ok'"
    )
    assert shim.ask().text == "ok"
    shim.process.terminate()
    assert shim.process.wait(SECONDS) == 0
