"""Open Runtimes' function contract, shown over HTTP by ``functions/<runtime>-open-runtimes/`` for each runtime."""

import pytest

from tests.runtimes.conftest import COMPILED, OPEN, contract_functions

pytestmark = [
    COMPILED,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.parametrize(
        "function", contract_functions(open_runtimes=True), indirect=True, scope="module"
    ),
]

PREFIX = "x-open-runtimes-"
AS_SENT = {
    "name": "J%C3%B3zef",
    "plus": "a+b",
    "empty": "",
    "none": "",
    "more": "b=c",
    "%C5%BC": "%F0%9F%90%A2",
}
"""The query of a request, and not decoded, by the runtimes of most languages."""
DECODED = {"name": "Józef", "plus": "a b", "empty": "", "none": "", "more": "b=c", "ż": "🐢"}
QUERIES = {
    "go": DECODED | {"name": "zw&x"},
    "python": DECODED,
    "ruby": AS_SENT | {"none": None},
    "rust": DECODED | {"plus": "a+b"},
}
"""What others make of it."""


def content_type(answer):
    return answer.headers["content-type"].replace(" ", "").lower()


def test_text_is_sent_as_utf_8(function):
    answer = function.get("/text")
    assert (answer.status_code, answer.content) == (200, "text ✓".encode())
    assert content_type(answer) == "text/plain;charset=utf-8"


def test_json_is_sent_as_utf_8(function):
    answer = function.get("/json")
    assert content_type(answer) == "application/json;charset=utf-8"
    assert answer.json() == {"hello": "world", "unicode": "żółw 🐢"}


def test_bytes_are_sent_as_they_are(function):
    answer = function.get("/binary")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == bytes(range(256))


def test_empty_is_no_content(function):
    answer = function.get("/empty")
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_redirect_is_permanent_unless_said_otherwise(function):
    answer = function.get("/redirect", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (301, "/target")


def test_the_request_has_all_parts_of_the_address(function):
    headers = {"Host": "shop.example:8080", "X-Colour": "blue"}
    seen = function.ask("POST", "/request?a=1&b=two", content="zażółć", headers=headers).json()
    assert (seen["method"], seen["path"], seen["bodyText"]) == ("POST", "/request", "zażółć")
    assert (seen["scheme"], seen["host"], seen["port"]) == ("http", "shop.example", 8080)
    assert (seen["query"], seen["queryString"]) == ({"a": "1", "b": "two"}, "a=1&b=two")
    assert seen["url"] == "http://shop.example:8080/request?a=1&b=two"
    assert seen["headers"]["x-colour"] == "blue"


def test_the_query_is_as_open_runtimes_has_it_in_each_language(function):
    target = (
        "/request?name=zw%26x&plus=a+b&name=J%C3%B3zef&empty=&none&more=b=c&&=nameless&%C5%BC=%F0%9F%90%A2"
    )
    expected = QUERIES.get(function.folder.name.removesuffix(OPEN), AS_SENT)
    query = function.get(target).json()["query"]
    assert {name: value for name, value in query.items() if name} == expected


def test_a_query_without_parameters_is_empty(function):
    for target in ("/request", "/request?"):
        assert function.get(target).json()["query"] == {}


def test_a_body_is_read_as_json(function):
    document = {"list": [1, None, "ü"]}
    assert function.ask("POST", "/body", json=document).json() == document


def test_log_and_error_are_lines_of_their_levels(function):
    answer = function.get("/log")
    streams = function.logged(answer, "info line", "error line")
    assert (streams["info line"], streams["error line"]) == ("info", "error")


def test_lines_are_dropped_where_logging_is_disabled(function):
    silent = function.get("/log", headers={f"{PREFIX}logging": "disabled"})
    assert silent.text == "logged"
    function.logged(function.get("/log"), "info line")  # lines come in order: theirs would be there, too
    assert function.lines(silent) == {}


def test_a_handler_that_returns_no_response_is_an_error(function):
    function.needs("missing-response")
    answer = function.get("/nothing")
    assert answer.status_code == 500
    assert "Return statement missing. return context.res.empty()" in answer.text


def test_an_error_is_told(function):
    answer = function.get("/raise")
    assert answer.status_code == 500
    assert "the reason ✗" in answer.json()["detail"]


def test_headers_of_the_protocol_are_hidden_from_the_function(function):
    seen = function.get("/request", headers={f"{PREFIX}timeout": "5", f"{PREFIX}anything": "x"}).json()
    assert not [name for name in seen["headers"] if name.startswith(PREFIX)]


def test_the_id_of_the_log_is_answered(function):
    assert function.get("/text", headers={f"{PREFIX}log-id": "L1"}).headers[f"{PREFIX}log-id"] == "L1"


@pytest.mark.parametrize("timeout", ["0", "-1", "1.5", "soon"])
def test_a_timeout_must_be_a_number_of_seconds(function, timeout):
    answer = function.get("/text", headers={f"{PREFIX}timeout": timeout})
    assert answer.status_code == 500
    assert "must be an integer greater than 0." in answer.text


def test_health_and_timings_are_answered(function):
    assert function.get("/__opr/health").text == "OK"
    name, _, seconds = function.get("/__opr/timings").text.strip().partition("=")
    assert name == "startup"
    assert float(seconds) >= 0


def test_a_secret_must_be_given_where_one_is_set(function):
    function.configure(environment={"OPEN_RUNTIMES_SECRET": "s3cret"})
    for headers in ({}, {f"{PREFIX}secret": "wrong"}):
        answer = function.get("/text", headers=headers)
        assert answer.status_code == 500
        assert "Unauthorized. Provide correct" in answer.text
    assert function.get("/text", headers={f"{PREFIX}secret": "s3cret"}).text == "text ✓"
