"""``martlet invoke``."""

import io
import sys

import pytest
from fake_platform import Answer, problem

from martlet.cli import main


@pytest.fixture
def platform(platform):
    for method in ("GET", "POST", "PUT"):
        platform.answer(method, "/invoke/greeter", Answer(b"hello", headers={"x-made-by": "me"}))
    return platform


def test_the_answer_goes_to_stdout_and_nothing_else(martlet, platform):
    result = martlet("invoke", "greeter", '{"name": "Ada"}')
    assert (result.code, result.out, result.err) == (0, "hello", "")
    (seen,) = platform.seen
    assert seen.method == "POST"
    assert seen.json == {"name": "Ada"}
    assert seen.headers["content-type"] == "application/json"


def test_without_a_body_it_is_a_get(martlet, platform):
    martlet("invoke", "greeter")
    assert [each.method for each in platform.seen] == ["GET"]


def test_the_body_may_come_from_a_file_or_from_stdin(martlet, platform, tmp_path, monkeypatch):
    (tmp_path / "body.bin").write_bytes(b"\x00\x01")
    martlet("invoke", "greeter", "-f", tmp_path / "body.bin")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[1, 2]")))
    martlet("invoke", "greeter", "-")
    file, stdin = platform.seen
    assert (file.body, file.headers["content-type"]) == (b"\x00\x01", "application/octet-stream")
    assert (stdin.body, stdin.headers["content-type"]) == (b"[1, 2]", "application/json")


def test_method_headers_path_and_query_are_sent(martlet, platform):
    platform.answer("PUT", "/invoke/greeter/a/b", Answer(b"there"))
    words = [
        "-X",
        "PUT",
        "-H",
        "X-One: 1",
        "-H",
        "content-type:text/plain",
        "--path",
        "/a/b",
        "--query",
        "q=1 2",
    ]
    assert martlet("invoke", "greeter", "{}", *words).out == "there"
    (seen,) = platform.seen
    assert seen.path == "/invoke/greeter/a/b?q=1+2"
    assert (seen.headers["x-one"], seen.headers["content-type"]) == ("1", "text/plain")


def test_include_shows_status_and_headers_first(martlet, platform):
    head, _, body = martlet("invoke", "greeter", "-i").out.partition("\n\n")
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "x-made-by: me" in head.splitlines()
    assert body == "hello"


def test_bytes_come_out_as_they_are(platform, capfdbinary):
    platform.answer("GET", "/invoke/greeter", Answer(bytes(range(256))))
    assert main(["invoke", "greeter"]) == 0
    assert capfdbinary.readouterr().out == bytes(range(256))


def test_a_status_of_the_function_itself_is_printed_and_told_by_the_exit_code(martlet, platform):
    platform.answer("GET", "/invoke/greeter", Answer({"mine": True}, 404))
    result = martlet("invoke", "greeter")
    assert (result.code, result.out) == (8, '{"mine": true}')


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (problem(401, "unauthenticated", "that key is unknown"), 4, "the key in MARTLET_KEY"),
        (problem(403, "forbidden", "scope invoke is missing"), 4, "martlet keys create"),
        (problem(404, "function_not_found", "no such function"), 3, "martlet list"),
        (problem(429, "overloaded", "the queue is full", **{"retry-after": "2"}), 7, "try again in 2 s"),
        (problem(500, "function_error", "ValueError: no"), 5, "request id request-1"),
        (problem(502, "function_out_of_memory", "out of memory"), 5, "--memory"),
        (problem(504, "function_timeout", "over 30 s"), 5, "--timeout"),
        (problem(500, "internal", "something broke"), 1, "log of the platform"),
        (problem(413, "body_too_large", "over 20Mi"), 2, "over 20Mi"),
    ],
)
def test_an_error_of_the_platform_is_a_sentence_and_an_exit_code(martlet, platform, answer, code, words):
    platform.answer("POST", "/invoke/greeter", answer)
    result = martlet("invoke", "greeter", "{}")
    assert result.code == code
    assert result.out == ""
    assert result.err.startswith(f"martlet: {answer.body['detail']}")
    assert words in result.err
    assert "Traceback" not in result.err


def test_a_platform_that_is_not_there_says_how_to_start_it(martlet, monkeypatch):
    import socket

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result = martlet(
            "--url", f"http://127.0.0.1:{unused.getsockname()[1]}", "--key", "k", "invoke", "greeter"
        )
    assert result.code == 6
    assert "martlet serve" in result.err


def test_wrong_words_are_a_wrong_usage(martlet, platform, tmp_path):
    assert martlet("invoke", "greeter", "-H", "nonsense").code == 2
    assert martlet("invoke", "greeter", "--query", "nonsense").code == 2
    assert martlet("invoke", "greeter", "-f", tmp_path / "gone").code == 2
    assert martlet("invoke", "greeter", "{}", "-f", __file__).code == 2
    assert martlet("invoke").code == 2
    assert martlet("--url", "nonsense", "invoke", "greeter").code == 2
    assert platform.seen == []
