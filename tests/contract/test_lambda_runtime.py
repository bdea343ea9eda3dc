"""The Lambda runtime: what its Runtime API tells a program, and what clients get of the program's answers."""

import base64
import http.client
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.lambda_programs import BOOTSTRAP, cell
from tests.contract.python_shim import SECONDS, Answer, Shim, until

INVOKE = "/2015-03-31/functions/anything/invocations"
STREAM = {
    "Lambda-Runtime-Function-Response-Mode": "streaming",
    "Content-Type": "application/vnd.awslambda.http-integration-response",
    "Transfer-Encoding": "chunked",
}


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    shim = Shim(tmp_path, cell)
    yield shim
    shim.close()


def specialise(shim: Shim, source: str, executable: bool = True, **members: Any) -> Answer:
    program = shim.code / "bootstrap"
    program.write_text(BOOTSTRAP + source)
    program.chmod(0o755 if executable else 0o644)
    return shim.specialise({}, **members)


def deploy(shim: Shim, source: str, **members: Any) -> Shim:
    """Gives the cell a program whose function is this source, and is sure that it loaded."""
    answer = specialise(shim, f"{source}\nrun(handle)", **members)
    assert (answer.status, answer.json["mode"]) == (200, "lambda")
    return shim


def replying(shim: Shim, reply: str) -> Answer:
    """What a client gets where the function answers so."""
    return deploy(shim, f"def handle(event, told):\n    return {reply}").ask()


def test_a_request_becomes_an_event(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    return event")
    answer = shim.ask(
        "PUT",
        "/a%C5%BC/b?x=1&x=2&empty=&y=%20",
        json.dumps({"a": 1}),
        content_type="application/json",
        cookie="one=1; two=2",
        X_Custom="yes",
        host="hello.example.org",
        user_agent="tests",
        x_forwarded_for="203.0.113.7, 127.0.0.1",
        x_faas_revision="3",
    )
    event = answer.json
    context = event.pop("requestContext")
    headers = event.pop("headers")
    assert event == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/aż/b",
        "rawQueryString": "x=1&x=2&empty=&y=%20",
        "queryStringParameters": {"x": "1,2", "empty": "", "y": " "},
        "cookies": ["one=1", "two=2"],
        "body": '{"a": 1}',
        "isBase64Encoded": False,
    }
    assert headers.items() >= {"x-custom": "yes", "content-type": "application/json"}.items()
    assert not {"cookie", "x-faas-revision"} & headers.keys()
    assert context["http"] == {
        "method": "PUT",
        "path": "/aż/b",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    }
    assert (context["domainName"], context["domainPrefix"]) == ("hello.example.org", "hello")
    assert abs(context["timeEpoch"] / 1000 - time.time()) < 60


@pytest.mark.parametrize(
    ("content_type", "body"), [("application/octet-stream", b"\xff\0"), ("text/plain", b"\xff")]
)
def test_a_body_that_is_no_text_is_base64(shim: Shim, content_type: str, body: bytes) -> None:
    deploy(shim, "def handle(event, told):\n    return event")
    event = shim.ask("POST", "/", body, content_type=content_type).json
    assert (event["isBase64Encoded"], base64.b64decode(event["body"])) == (True, body)


def test_the_program_is_told_of_the_invocation(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    return {k.lower(): v for k, v in told.items()}")
    told = shim.ask("GET", "/", x_request_id="r-1", x_faas_deadline="20000", x_amzn_trace_id="Root=1-a").json
    assert told["lambda-runtime-aws-request-id"] == "r-1"
    assert 0 < int(told["lambda-runtime-deadline-ms"]) / 1000 - time.time() <= 20
    assert (
        told["lambda-runtime-invoked-function-arn"] == "arn:aws:lambda:us-east-1:000000000000:function:hello"
    )
    assert told["lambda-runtime-trace-id"] == "Root=1-a"
    assert shim.ask().json["lambda-runtime-trace-id"].startswith("Root=1-")


def test_its_environment_is_that_of_lambda(shim: Shim) -> None:
    environment = {"GREETING": "hi", "AWS_REGION": "eu-west-1"}
    deploy(
        shim,
        "def handle(event, told):\n    return dict(os.environ)",
        handler="app.handler",
        environment=environment,
        memory=256 << 20,
    )
    variables = shim.ask().json
    expected = {
        "_HANDLER": "app.handler",
        "LAMBDA_TASK_ROOT": str(shim.code),
        "AWS_LAMBDA_FUNCTION_NAME": "hello",
        "AWS_LAMBDA_FUNCTION_VERSION": "3",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        **environment,
    }
    assert variables.items() >= expected.items()
    assert "LEFT_OVER" not in variables


@pytest.mark.parametrize(
    ("reply", "status", "content_type", "body"),
    [
        ("{'statusCode': 404, 'body': 'no ✗'}", 404, "application/json", "no ✗".encode()),
        ("{'statusCode': '201'}", 201, "application/json", b""),
        ("{'statusCode': 200, 'body': {'a': 1}}", 200, "application/json", b'{"a": 1}'),
        (
            "{'statusCode': 200, 'headers': {'Content-Type': 'text/html'}, 'body': '<p>'}",
            200,
            "text/html",
            b"<p>",
        ),
        ("{'statusCode': 200, 'isBase64Encoded': True, 'body': '/wA='}", 200, "application/json", b"\xff\0"),
        ("{'a': [1, None]}", 200, "application/json", b'{"a": [1, null]}'),
        ("'text'", 200, "application/json", b'"text"'),
        ("None", 200, "application/json", b"null"),
        ("(b'<not json>', {}, False)", 200, "text/plain; charset=utf-8", b"<not json>"),
    ],
)
def test_a_reply_becomes_a_response(
    shim: Shim, reply: str, status: int, content_type: str, body: bytes
) -> None:
    answer = replying(shim, reply)
    assert (answer.status, answer.headers["content-type"], answer.body) == (status, content_type, body)


def test_headers_that_come_several_times(shim: Shim) -> None:
    answer = replying(
        shim,
        "{'statusCode': 200, 'headers': {'x-n': 7, 'x-m': 'single'}, 'multiValueHeaders': {'X-M': ['a', 'b']},"
        " 'cookies': ['a=1; Path=/', 'b=2']}",
    )
    assert answer.headers["x-n"] == "7"
    assert answer.headers.get_all("x-m") == ["a", "b"]
    assert answer.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ("{'statusCode': 99}", "statusCode is 99, and must be a number from 200 to 599"),
        ("{'statusCode': 200, 'headers': []}", None),
        (
            "{'statusCode': 200, 'headers': [1]}",
            "headers and multiValueHeaders must be objects, and cookies a list",
        ),
        ("{'statusCode': 200, 'headers': {'a': 'b\\r\\nc: d'}}", "a header cannot be sent: "),
        (
            "{'statusCode': 200, 'isBase64Encoded': True, 'body': '%'}",
            "isBase64Encoded is true, and body is not base64",
        ),
    ],
)
def test_a_reply_that_is_no_response_is_the_functions_fault(
    shim: Shim, reply: str, message: str | None
) -> None:
    answer = replying(shim, reply)
    if message is None:
        assert answer.status == 200
    else:
        assert (answer.status, answer.headers["x-martlet-error"]) == (500, "BadReply")
        assert answer.json["message"].startswith(message)
    assert shim.ask().status == answer.status


def test_what_the_handler_raises_is_told_and_the_program_lives(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    raise ValueError('the reason ✗')")
    for _ in "ab":
        answer = shim.ask()
        assert (answer.status, answer.headers["x-martlet-error"]) == (500, "ValueError")
        assert answer.json == {"type": "ValueError", "message": "the reason ✗"}


def test_an_answer_is_streamed_as_it_comes(shim: Shim) -> None:
    prelude = json.dumps({"statusCode": 202, "headers": {"x-a": "b"}, "cookies": ["c=1"]})
    deploy(
        shim,
        "def pieces():\n"
        f"    yield {prelude.encode()!r} + bytes(8) + b'one'\n"
        "    while not os.path.exists(os.environ['GO']):\n        time.sleep(0.01)\n"
        "    yield b'two'\n"
        f"def handle(event, told):\n    return pieces(), {STREAM!r}, True",
        environment={"GO": str(shim.path.with_name("go"))},
    )
    with shim.client() as client:
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, response.headers["x-a"], response.headers["set-cookie"]) == (202, "b", "c=1")
        assert response.read(3) == b"one"
        shim.path.with_name("go").touch()
        assert response.read() == b"two"


def test_a_stream_without_a_prelude_is_the_body(shim: Shim) -> None:
    headers = {**STREAM, "Content-Type": "text/csv"}
    deploy(shim, f"def handle(event, told):\n    return iter([b'a,', b'b']), {headers!r}, True")
    answer = shim.ask()
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/csv", b"a,b")


def test_a_stream_without_the_prelude_that_it_announces_is_an_error(shim: Shim) -> None:
    deploy(shim, f"def handle(event, told):\n    return iter([b'a,', b'b']), {STREAM!r}, True")
    assert shim.ask().json["type"] == "BadReply"
    assert shim.ask().json["type"] == "BadReply"


def test_a_stream_that_fails_is_cut_short(shim: Shim) -> None:
    headers = {**STREAM, "Content-Type": "text/plain", "Trailer": "Lambda-Runtime-Function-Error-Type"}
    source = f"""
def handle(event, told):
    id = told["Lambda-Runtime-Aws-Request-Id"]
    api.putrequest("POST", BASE + f"invocation/{{id}}/response")
    for name, value in {headers!r}.items():
        api.putheader(name, value)
    api.endheaders()
    api.send(b"3\\r\\none\\r\\n0\\r\\nLambda-Runtime-Function-Error-Type: Oops\\r\\n\\r\\n")
    assert api.getresponse().read()
    return handle(*reversed([*reversed(next_())]))

def next_():
    told, event = ask("GET", "invocation/next")
    return json.loads(event), told.headers
"""
    deploy(shim, source)
    with shim.client() as client:
        client.request("GET", "/")
        with pytest.raises(http.client.IncompleteRead) as cut:
            client.getresponse().read()
    assert cut.value.partial == b"one"


def test_a_client_that_leaves_a_stream_leaves_the_program_running(shim: Shim) -> None:
    deploy(
        shim,
        "def handle(event, told):\n"
        "    if event['rawPath'] == '/': return 'still here'\n"
        f"    return iter([b'x' * 100_000] * 100), {STREAM | {'Content-Type': 'text/plain'}!r}, True",
    )
    with shim.client() as client:
        client.request("GET", "/long")
        client.getresponse().read(10)
    assert shim.ask().json == "still here"


# -- AWS's Invoke


def test_invoke_passes_the_event_and_the_result_as_they_are(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    return [event, told['Lambda-Runtime-Client-Context']]")
    answer = shim.ask("POST", f"{INVOKE}?Qualifier=live", '{"a": [1]}', x_amz_client_context="e30=")
    assert (answer.status, answer.json) == (200, [{"a": [1]}, "e30="])
    assert answer.headers["x-amz-executed-version"] == "$LATEST"
    assert shim.ask("POST", INVOKE).json == [None, None]


def test_invoke_tells_errors_as_aws_does(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    raise KeyError('k')")
    answer = shim.ask("POST", INVOKE, "{}")
    assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert (answer.json["errorType"], answer.json["errorMessage"]) == ("KeyError", "'k'")


@pytest.mark.parametrize(
    ("body", "kind", "status", "error"),
    [
        ("{", "RequestResponse", 400, "InvalidRequestContentException"),
        ("{}", "Event", 400, "InvalidParameterValueException"),
        ("{}", "DryRun", 204, None),
    ],
)
def test_what_invoke_does_not_run(shim: Shim, body: str, kind: str, status: int, error: str | None) -> None:
    deploy(shim, "def handle(event, told):\n    return 'ran'")
    answer = shim.ask("POST", INVOKE, body, X_Amz_Invocation_Type=kind)
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, error)


# -- loading, and its end


def test_an_error_while_loading_is_told(shim: Shim) -> None:
    document = {
        "errorMessage": "no such thing ✗",
        "errorType": "ImportError",
        "stackTrace": ["line 1", "line 2"],
    }
    answer = specialise(shim, f"ask('POST', 'init/error', json.dumps({document!r}))\nsys.exit(1)")
    assert (answer.status, answer.json["error"]) == (
        422,
        {"type": "ImportError", "message": "no such thing ✗", "traceback": "line 1\nline 2"},
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [("sys.exit(4)", "ended with exit code 4"), ("os.kill(os.getpid(), 9)", "was ended by signal 9")],
)
def test_a_program_that_ends_while_loading_is_told(shim: Shim, how: str, words: str) -> None:
    answer = specialise(shim, how)
    assert (answer.status, answer.json["error"]["message"]) == (
        422,
        f"the process {words} while it loaded the code",
    )


@pytest.mark.parametrize(("how", "code"), [("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_the_instance_ends_as_its_program(shim: Shim, how: str, code: int) -> None:
    deploy(shim, f"def handle(event, told):\n    {how}")
    with pytest.raises(http.client.RemoteDisconnected):
        shim.ask()
    assert shim.process.wait(SECONDS) == code


def test_a_request_is_finished_before_the_end(shim: Shim) -> None:
    deploy(
        shim,
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('told to end', flush=True), os._exit(0)))\n"
        "def handle(event, told):\n    print('runs', flush=True)\n    time.sleep(0.5)\n    return 'done'",
    )
    with shim.client() as client:
        client.request("GET", "/")
        shim.logged(lambda frame: frame["m"] == "runs")
        shim.process.terminate()
        assert client.getresponse().read() == b'"done"'
    assert shim.process.wait(SECONDS) == 0
    shim.logged(lambda frame: frame["m"] == "told to end")


def test_what_is_printed_has_the_id_of_the_invocation_that_runs(shim: Shim) -> None:
    deploy(
        shim,
        "os.write(1, b'loading\\n')\n"
        "def handle(event, told):\n    os.write(2, b'to stderr\\n')\n    os.write(1, b'to stdout\\nunfinished')",
    )
    for name in ("one", "two"):
        shim.ask(x_request_id=name)
    printed = {
        (None, "stdout", "loading"),
        *((name, "stdout", text) for name in ("one", "two") for text in ("to stdout", "unfinished")),
        *((name, "stderr", "to stderr") for name in ("one", "two")),
    }
    until(lambda: len(shim.frames()) >= len(printed))
    assert {(frame["id"], frame["s"], frame["m"]) for frame in shim.frames()} == printed


@pytest.mark.parametrize("headers", [{}, STREAM | {"Content-Type": "text/plain"}], ids=["whole", "streamed"])
def test_what_has_no_line_end_is_logged_before_the_response_has_ended(
    shim: Shim, headers: dict[str, str]
) -> None:
    source = f"""
def handle(event, told):
    os.write(1, b"no end")
    path = f"invocation/{{told['Lambda-Runtime-Aws-Request-Id']}}/response"
    ask("POST", path, iter([b'"answer"']), {headers!r}, encode_chunked=True)
    time.sleep(600)
"""
    deploy(shim, source)
    assert shim.ask(x_request_id="one").json == "answer"
    assert shim.logged(lambda frame: frame["m"] == "no end")["id"] == "one"


def test_the_last_words_of_a_program_are_logged(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    os.write(2, b'the end')\n    os._exit(3)")
    with pytest.raises(http.client.RemoteDisconnected):
        shim.ask(x_request_id="last")
    assert shim.logged(lambda frame: frame["m"] == "the end")["id"] == "last"


def test_several_at_once_take_several_programs(shim: Shim) -> None:
    deploy(
        shim,
        "def handle(event, told):\n"
        "    open(os.environ['MEET'] + event['rawPath'], 'w').close()\n"
        "    while len(os.listdir(os.environ['MEET'])) < 2:\n        time.sleep(0.01)\n"
        "    return os.getpid()",
        concurrency=2,
        environment={"MEET": str(shim.path.parent / "meet")},
    )
    os.mkdir(shim.path.parent / "meet")
    with shim.client() as one, shim.client() as other:
        one.request("GET", "/one")
        other.request("GET", "/other")
        assert one.getresponse().read() != other.getresponse().read()


def test_health_is_answered_while_the_program_is_busy(shim: Shim) -> None:
    deploy(shim, "def handle(event, told):\n    print('runs', flush=True)\n    time.sleep(600)")
    with shim.client() as busy:
        busy.request("GET", "/")
        shim.logged(lambda frame: frame["m"] == "runs")
        assert shim.ask("GET", "/_martlet/health").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("POST", "invocation/unknown/response", 400, "InvalidRequestID"),
        ("POST", "invocation/unknown/error", 400, "InvalidRequestID"),
        ("POST", "init/error", 403, "InvalidStateTransition"),
        ("GET", "elsewhere", 404, "NotFound"),
        ("PUT", "invocation/next", 404, "NotFound"),
    ],
)
def test_what_the_program_must_not_ask(shim: Shim, method: str, path: str, status: int, error: str) -> None:
    deploy(
        shim,
        "def handle(event, told):\n"
        f"    answer, body = ask({method!r}, {path!r}, '{{}}')\n"
        "    return [answer.status, json.loads(body)['errorType']]",
    )
    assert shim.ask().json == [status, error]


# -- which program is started


def test_the_handler_may_name_the_program(shim: Shim) -> None:
    program = shim.code / "bin" / "server"
    program.parent.mkdir()
    program.write_text(f"{BOOTSTRAP}run(lambda event, told: os.environ['_HANDLER'])")
    program.chmod(0o755)
    assert shim.deploy({}, "bin/server").ask().json == "bin/server"


def test_a_bootstrap_that_cannot_be_executed_is_named(shim: Shim) -> None:
    answer = specialise(shim, "", executable=False)
    assert answer.status == 422
    assert "chmod +x bootstrap" in answer.json["error"]["message"]


def test_a_package_without_any_program_is_told_what_it_lacks(shim: Shim) -> None:
    error = shim.specialise({"app.py": ""}).json["error"]
    assert error["type"] == "NoProgram"
    assert "awslambdaric" in error["message"]


def test_pythons_client_is_found_among_the_dependencies(shim: Shim, tmp_path: Path) -> None:
    client = tmp_path / "dependencies" / "awslambdaric" / "__main__.py"
    client.parent.mkdir(parents=True)
    client.write_text(f"{BOOTSTRAP}run(lambda event, told: sys.argv[1:])")
    dependencies = {"dependencies": str(tmp_path / "dependencies")}
    assert shim.deploy({}, "app.handler", **dependencies).ask().json == ["app.handler"]


def test_pythons_client_is_told_of_the_usual_handler(shim: Shim) -> None:
    client = shim.code / "awslambdaric" / "__main__.py"
    client.parent.mkdir()
    client.write_text(f"{BOOTSTRAP}run(lambda event, told: [*sys.argv[1:], os.environ['_HANDLER']])")
    assert shim.deploy({}).ask().json == ["lambda_function.lambda_handler"] * 2
