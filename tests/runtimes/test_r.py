"""What the shim of R brings because R has none: JSON, and pipes that functions cannot disturb."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from martlet import runtimes
from tests.conftest import require

FOLDER = Path(runtimes.__file__).resolve().parent / "r"

RECODE = """
sys.source(commandArgs(TRUE)[1], globalenv())
recode <- function(bytes) enc2utf8(paste0("=", json$encode(json$decode(bytes))))
refused <- function(raised) paste0("!", conditionMessage(raised))
for (line in readLines(file("stdin", "rb"))) {
  bytes <- as.raw(strtoi(strsplit(line, " ")[[1]], 16))
  cat(charToRaw(tryCatch(recode(bytes), bad_json = refused)), "\\n")
}
"""

VALUES = [
    None,
    [],
    {},
    [[], {}, [None]],
    [1],
    {"": " ", "a": {"b": [True, False, None]}},
    [0, -1, 2**53 - 1, 0.1, 1 / 3, -2.5e-300, 1e300, 5e-324],
    json.loads("[" * 100 + "]" * 100),
    'quote " backslash \\ \\u0041 slash / control \x01\x1f\x7f\b\f\n\r\t żółw 🐢 \u2028',
]

NO_JSON = [
    "",
    " ",
    "[",
    "[1,]",
    "[1 2]",
    '{"a"}',
    '{"a":1,}',
    "{a:1}",
    '"',
    '"\n"',
    "\0",
    r'"\x"',
    r'"\u12"',
    r'"\u0000"',
    r'"\ud800"',
    r'"\ud800\u0041"',
    "01",
    "1.",
    "-",
    "1e",
    "1e999",
    "nul",
    "1 2",
    "é",
    "[" * 101 + "]" * 101,
    "[" * 100_000,
]

DOCUMENTS = [
    json.dumps(value, ensure_ascii=ascii_only, indent=1) for value in VALUES for ascii_only in (0, 1)
]


def interpreter():
    """Returns the program."""
    program = shutil.which("R")
    require(program, "R is not installed")
    return program


@pytest.fixture(scope="module")
def recoded(tmp_path_factory):
    """What becomes of a document that is read and written again: `=` and JSON, or `!` and why not."""
    script = tmp_path_factory.mktemp("recode") / "recode.R"
    script.write_text(RECODE)
    documents = [*DOCUMENTS, *NO_JSON]
    done = subprocess.run(
        [interpreter(), "--vanilla", "--no-echo", f"--file={script}", "--args", FOLDER / "martlet/json.R"],
        input="".join(f"{document.encode().hex(' ')}\n" for document in documents).encode(),
        env=os.environ | {"LANG": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    answers = [bytes.fromhex(line).decode() for line in done.stdout.decode().splitlines()]
    return dict(zip(documents, answers, strict=True))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_json_is_read_and_written_without_loss(recoded, document):
    answer = recoded[document]
    assert answer.startswith("=")
    assert json.loads(answer[1:]) == json.loads(document)


@pytest.mark.parametrize("document", NO_JSON, ids=lambda document: repr(document[:20]))
def test_what_is_not_json_is_refused(recoded, document):
    answer = recoded[document]
    assert answer.startswith("!")
    assert " at byte " in answer


def run(code, source, *targets, handler="handle", body=b""):
    """Has the shim answer requests.

    Returns:
        What it said of the code, its responses, and its log.
    """
    (code / "handler.R").write_text(source)
    given, said = code / "specification", code / "answer"
    given.write_text(json.dumps({"code": str(code), "handler": handler, "environment": {}}) + "\n")
    start = tomllib.loads((FOLDER / "runtime.toml").read_text())["start"]["command"]
    command = [part.format(program=interpreter(), runtime=FOLDER) for part in start]
    head = "POST {} HTTP/1.1\r\nx-request-id: abc\r\ncontent-length: {}\r\n\r\n"
    done = subprocess.run(
        ["bash", "-c", f'exec "$@" 3<{given} 4>{said}', "bash", *command],
        input=b"".join(head.format(target, len(body)).encode() + body for target in targets),
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"},
        check=False,
    )
    return json.loads(said.read_text()), done.stdout, done.stderr.decode()


def frames(log):
    """Returns the frames of a log: request, stream and message."""
    read = [json.loads(line[1:]) for line in log.split("\n") if line.startswith("\x1e")]
    return [(frame["id"], frame["s"], frame["m"]) for frame in read]


def test_what_a_function_starts_gets_at_no_request_or_response(tmp_path):
    source = 'handle <- function(request) { cat("noise\\n"); system("cat; echo more noise"); "clean" }'
    answer, responses, log = run(tmp_path, source, "/", "/")
    assert answer["mode"] == "handler"
    assert responses.count(b"HTTP/1.1 200") == responses.count(b"\r\n\r\nclean") == 2
    assert b"noise" not in responses
    assert log.count("more noise") == 2


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("I(1)", b"[1]"),
        ("1:3", b"[1,2,3]"),
        ('c("a", NA)', b'["a",null]'),
        ("c(a = 1, b = NaN)", b'{"a":1,"b":null}'),
        ('data.frame(n = 1:2, s = c("x", "y"))', b'[{"n":1,"s":"x"},{"n":2,"s":"y"}]'),
        ("matrix(1:4, 2)", b"[[1,3],[2,4]]"),
        ('as.Date("2026-11-21")', b'"2026-11-21"'),
        ('factor("a")', b'"a"'),
        ("list()", b"[]"),
        ("123456789", b"123456789"),
    ],
)
def test_values_of_r_are_json(tmp_path, expression, written):
    _, responses, _ = run(tmp_path, f"handle <- function(request) {expression}", "/")
    assert responses.endswith(b"\r\n\r\n" + written)


@pytest.mark.parametrize(
    ("expression", "kind", "message"),
    [
        ('stop("the reason")', "simpleError", "the reason"),
        ("(function() sys.function()())()", None, ""),
        ("list(mean)", "simpleError", "cannot be written as JSON"),
        ('request$respond("", 99)', "bad_response", "99 is not an HTTP status"),
        ('request$respond("", headers = c(a = "b\\r\\nc: d"))', "simpleError", "cannot be sent as a header"),
        ('request$respond("", headers = list("a"))', "bad_response", "with names"),
    ],
)
def test_an_error_is_answered_and_the_next_request_too(tmp_path, expression, kind, message):
    recursion = "endless <- function() endless()\n" if kind is None else ""
    call = "endless()" if kind is None else expression
    source = f'{recursion}handle <- function(request) if (request$path == "/") {call} else "alive"'
    _, responses, log = run(tmp_path, source, "/", "/next")
    failed, alive = responses.split(b"HTTP/1.1 ")[1:]
    assert failed.startswith(b"500 ")
    document = json.loads(failed.partition(b"\r\n\r\n")[2])
    assert kind in (None, document["type"])
    assert message in document["message"]
    assert alive.endswith(b"alive")
    assert [stream for _, stream, _ in frames(log)] == ["error"]


def test_a_traceback_names_the_places_in_the_code_of_the_function(tmp_path):
    source = "handle <- function(request) {\n  inner()\n}\ninner <- function() stop('x')"
    _, _, log = run(tmp_path, source, "/")
    ((_, _, traceback),) = frames(log)
    assert traceback.splitlines()[:2] == ["simpleError in inner(): x", "    at handler.R:2: inner()"]


def test_a_body_that_is_no_json_is_the_clients_mistake(tmp_path):
    _, responses, log = run(tmp_path, "handle <- function(request) request$json()", "/", body=b"{]")
    assert responses.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_json"' in responses
    assert b'"request_id":"abc"' in responses
    assert frames(log) == []


def test_a_stream_that_fails_is_cut_short(tmp_path):
    source = (
        'handle <- function(request) { n <- 0; function() { n <<- n + 1; if (n == 2) stop("no"); "one" } }'
    )
    _, responses, log = run(tmp_path, source, "/", "/")
    assert responses.endswith(b"\r\n\r\n3\r\none\r\n")
    assert [stream for _, stream, _ in frames(log)] == ["error"]


def test_a_connection_is_streamed(tmp_path):
    (tmp_path / "file").write_bytes(b"\0\1")
    _, responses, _ = run(tmp_path, 'handle <- function(request) file("file")', "/")
    assert responses.endswith(b"\r\n\r\n2\r\n\0\1\r\n0\r\n\r\n")


def test_a_long_message_is_cut_into_frames(tmp_path):
    source = 'handle <- function(request) { message(strrep("ż\\001", 5000)); NULL }'
    _, _, log = run(tmp_path, source, "/")
    assert {(request, stream) for request, stream, _ in frames(log)} == {("abc", "stderr")}
    assert "".join(message for _, _, message in frames(log)) == "ż\1" * 5000
    assert max(len(line) for line in log.encode().split(b"\n")) < 4096


@pytest.mark.parametrize(
    ("source", "handler", "kind", "message"),
    [
        ("x <- 1", "handle", "load_error", "handler.R has no function handle"),
        ("handle <- function(", "handle", "simpleError", "unexpected end of input"),
        ('stop("the reason")', "handle", "simpleError", "the reason"),
        ("greet <- function(request) 1", "handler:meet", "load_error", "handler.R has no function meet"),
    ],
)
def test_code_that_does_not_load_is_told(tmp_path, source, handler, kind, message):
    answer, _, _ = run(tmp_path, source, handler=handler)
    assert answer["error"]["type"] == kind
    assert message in answer["error"]["message"]


@pytest.mark.parametrize("handler", ["greet", "handler:greet", "handler.R:greet"])
def test_a_function_is_found_by_its_name(tmp_path, handler):
    _, responses, _ = run(tmp_path, 'greet <- function(request) "hi"', "/", handler=handler)
    assert responses.endswith(b"\r\n\r\nhi")
