"""Functions written for Open Runtimes, on the Python runtime: their context, and what headers ask of the runtime."""

import shutil
from pathlib import Path

import pytest

from tests.contract.python_shim import SECONDS, Shim, until

FIXTURE = Path(__file__).parents[1] / "runtimes" / "functions" / "python-open-runtimes"
KINDS = pytest.mark.parametrize("define", ["def", "async def"], ids=["sync", "async"])
SECRET = {"OPEN_RUNTIMES_SECRET": "s3cret"}


@pytest.fixture
def function(shim: Shim) -> Shim:
    """The function of ``src/main.py``, at its usual place."""
    shutil.copytree(FIXTURE, shim.code, dirs_exist_ok=True)
    return shim.deploy({})


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("/text", 200, "text/plain; charset=utf-8", "text ✓".encode()),
        ("/json", 200, "application/json; charset=utf-8", '{"hello":"world","unicode":"żółw 🐢"}'.encode()),
        ("/binary", 200, "application/octet-stream", bytes(range(256))),
        ("/empty", 204, None, b""),
        ("/redirect", 301, "text/plain; charset=utf-8", b""),
    ],
)
def test_each_kind_of_response(
    function: Shim, path: str, status: int, content_type: str | None, body: bytes
) -> None:
    answer = function.ask("GET", path)
    assert (answer.status, answer.headers["content-type"], answer.body) == (status, content_type, body)
    assert answer.headers["location"] == ("/target" if path == "/redirect" else None)


def test_the_request_is_described(function: Shim) -> None:
    answer = function.ask(
        "PUT",
        "/request?a=1&b=&a=2&c=%20",
        "żółw".encode(),
        host="example.org:8000",
        x_forwarded_proto="https",
    )
    headers = answer.json.pop("headers")
    assert answer.json | {"headers": None} == {
        "method": "PUT",
        "url": "https://example.org:8000/request?a=1&b=&a=2&c= ",
        "scheme": "https",
        "host": "example.org",
        "port": 8000,
        "path": "/request",
        "query": {"a": "2", "b": "", "c": " "},
        "queryString": "a=1&b=&a=2&c= ",
        "headers": None,
        "bodyText": "żółw",
    }
    assert headers["host"] == "example.org:8000"
    assert function.ask("GET", "/request", host="example.org").json["url"] == "http://example.org/request"


def test_the_body_is_read_as_json(function: Shim) -> None:
    assert function.ask("POST", "/body", '{"a": ["ż"]}'.encode()).json == {"a": ["ż"]}


def test_the_context_logs(function: Shim) -> None:
    assert function.ask("GET", "/log", x_request_id="r1").text == "logged"
    info = function.logged(lambda frame: frame["m"] == "info line")
    error = function.logged(lambda frame: frame["m"] == "error line")
    assert [(info["s"], info["id"]), (error["s"], error["id"])] == [("info", "r1"), ("error", "r1")]


def test_logging_is_silenced_by_a_header(function: Shim) -> None:
    assert function.ask("GET", "/log", x_open_runtimes_logging="disabled").text == "logged"
    function.ask("GET", "/log", x_request_id="after")
    function.logged(lambda frame: frame["m"] == "error line")
    assert {frame["id"] for frame in function.frames()} == {"after"}


@KINDS
def test_a_function_that_uses_its_context_must_return_something(shim: Shim, define: str) -> None:
    shim.deploy({"main.py": f"{define} main(context):\n    context.req.path"})
    answer = shim.ask()
    assert (answer.status, answer.headers["x-martlet-error"]) == (500, "NothingReturned")
    assert answer.json["message"] == (
        "Return statement missing. return context.res.empty() if no response is expected."
    )


@KINDS
def test_a_function_that_does_not_may_return_nothing(shim: Shim, define: str) -> None:
    shim.deploy({"main.py": f"{define} main(request):\n    request.path"})
    assert shim.ask().status == 204


def test_what_it_raises_is_told(function: Shim) -> None:
    answer = function.ask("GET", "/raise")
    assert (answer.status, answer.json) == (500, {"type": "ValueError", "message": "the reason ✗"})


@KINDS
def test_the_secret_must_be_known(shim: Shim, define: str) -> None:
    shim.deploy(
        {"main.py": f"{define} main(context):\n    return context.res.text('in')"}, environment=SECRET
    )
    refusal = 'Unauthorized. Provide correct "x-open-runtimes-secret" header.'
    for headers in ({}, {"x_open_runtimes_secret": "wrong"}, {"x_open_runtimes_timeout": "5"}):
        answer = shim.ask("GET", "/", **headers)
        assert (answer.status, answer.text) == (500, refusal)
    assert shim.ask("GET", "/", x_open_runtimes_secret="s3cret").text == "in"


def test_without_a_secret_any_will_do(function: Shim) -> None:
    assert function.ask("GET", "/text", x_open_runtimes_secret="whatever").status == 200


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "²"])
def test_the_timeout_must_be_a_whole_number_of_seconds(function: Shim, value: str) -> None:
    with function.client() as client:
        answer = client.ask("GET", "/text", headers={"X-Open-Runtimes-Timeout": value.encode()})
    message = 'Header "x-open-runtimes-timeout" must be an integer greater than 0.'
    assert (answer.status, answer.text) == (500, message)


def test_a_run_that_takes_too_long_is_answered_and_its_instance_ends(shim: Shim) -> None:
    shim.deploy(
        {"main.py": "import time\ndef main(context):\n    time.sleep(600)\n    return context.res.empty()"}
    )
    answer = shim.ask("GET", "/", x_open_runtimes_timeout="1")
    assert (answer.status, answer.text) == (500, "Execution timed out.")
    assert answer.headers["connection"] == "close"
    assert shim.logged(lambda frame: frame["m"] == "Execution timed out.")["s"] == "error"
    assert shim.process.wait(SECONDS) == 0


def test_an_async_run_that_takes_too_long_is_cancelled_and_the_instance_lives(shim: Shim) -> None:
    shim.deploy(
        {
            "main.py": "import asyncio\n"
            "async def main(context):\n"
            "    if context.req.path == '/slow':\n"
            "        try:\n            await asyncio.sleep(600)\n"
            "        finally:\n            context.log('cancelled')\n"
            "    return context.res.text('quick')"
        }
    )
    answer = shim.ask("GET", "/slow", x_open_runtimes_timeout="1")
    assert (answer.status, answer.text) == (500, "Execution timed out.")
    shim.logged(lambda frame: frame["m"] == "cancelled")
    assert shim.ask("GET", "/", x_open_runtimes_timeout="60").text == "quick"


def test_a_run_in_time_is_as_without_a_timeout(shim: Shim) -> None:
    shim.deploy(
        {
            "main.py": "def main(context):\n"
            "    if context.req.path == '/raise':\n        raise KeyError('k')\n"
            "    print('from', context.request_id)\n    return context.res.text('done')"
        }
    )
    assert shim.ask("GET", "/", x_open_runtimes_timeout="60", x_request_id="r9").text == "done"
    assert shim.logged(lambda frame: frame["m"] == "from r9")["id"] == "r9"
    assert shim.ask("GET", "/raise", x_open_runtimes_timeout="60").json["type"] == "KeyError"


@KINDS
def test_the_id_of_the_log_is_answered_back(shim: Shim, define: str) -> None:
    shim.deploy({"main.py": f"{define} main(context):\n    return context.res.text(context.get_text())"})
    assert shim.ask("GET", "/", x_open_runtimes_log_id="log-7").headers["x-open-runtimes-log-id"] == "log-7"
    made = [shim.ask("GET", "/", x_open_runtimes_timeout="9").headers["x-open-runtimes-log-id"] for _ in "ab"]
    assert made[0] != made[1]
    assert shim.ask().headers["x-open-runtimes-log-id"] is None


def test_a_streamed_response_has_the_id_once(shim: Shim) -> None:
    shim.deploy({"main.py": "def main(context):\n    yield 'a\\r\\nb'\n    yield 'c\\r\\nd'"})
    answer = shim.ask("GET", "/", x_open_runtimes_log_id="one")
    assert (answer.headers.get_all("x-open-runtimes-log-id"), answer.body) == (["one"], b"a\r\nbc\r\nd")


@KINDS
def test_its_headers_are_hidden_both_ways(shim: Shim, define: str) -> None:
    shim.deploy(
        {
            "main.py": f"{define} main(context):\n"
            "    assert context.req.headers == context.headers\n"
            "    return context.res.json([*context.req.headers], 200, {'X-Open-Runtimes-Secret': 'x', 'x-a': 'b'})"
        }
    )
    answer = shim.ask("GET", "/", X_Open_Runtimes_Secret="mine", x_open_runtimes_other="1", x_shown="1")
    assert [name for name in answer.json if name.startswith("x-")] == ["x-shown"]
    assert (answer.headers["x-open-runtimes-secret"], answer.headers["x-a"]) == (None, "b")


@KINDS
def test_the_runtime_answers_for_itself(shim: Shim, define: str) -> None:
    source = f"import time\ntime.sleep(0.01)\n{define} main(context):\n    return context.res.text(context.req.path)"
    shim.deploy({"main.py": source})
    assert shim.ask("GET", "/__opr/health").text == "OK"
    name, _, seconds = shim.ask("GET", "/__opr/timings").text.strip().partition("=")
    assert name == "startup"
    assert float(seconds) >= 0.01
    assert shim.ask("GET", "/__opr/other").text == "/__opr/other"


@pytest.mark.parametrize("handler", ["src/lib.py", "src/lib.py:main", "src.lib:main"])
def test_the_handler_may_name_a_file(shim: Shim, handler: str) -> None:
    files = {
        "src/lib.py": "from .names import NAME\ndef main(context):\n    return context.res.text(NAME)",
        "src/names.py": "NAME = 'lib'",
    }
    assert shim.deploy(files, handler).ask().text == "lib"


def test_a_file_that_is_not_there_is_named(shim: Shim) -> None:
    answer = shim.specialise({"main.py": ""}, "src/main.py")
    assert answer.json["error"]["message"] == (
        "handler 'src/main.py' names the module 'src', and the code has main.py"
    )


def test_neighbours_are_told_apart_while_a_run_times_out(shim: Shim) -> None:
    """With several requests at once the others are finished before the instance ends."""
    shim.deploy(
        {
            "main.py": "import time\n"
            "def main(context):\n"
            "    context.log('began')\n"
            "    time.sleep(float(context.req.query['s']))\n    return context.res.text('finished')"
        },
        concurrency=2,
    )
    with shim.client() as neighbour:
        neighbour.request("GET", "/?s=2", headers={"x-request-id": "neighbour"})
        until(lambda: any(frame["id"] == "neighbour" for frame in shim.frames()))
        assert shim.ask("GET", "/?s=600", x_open_runtimes_timeout="1").status == 500
        assert neighbour.getresponse().read() == b"finished"
    assert shim.process.wait(SECONDS) == 0
