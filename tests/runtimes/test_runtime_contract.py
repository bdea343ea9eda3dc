"""What every runtime promises, shown over HTTP by its contract function (``functions/<runtime>/``).

It is shown with the newest version that is found; of the others `test_runtime_versions` shows some of it.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.runtimes.conftest import COMPILED, contract_functions
from tests.system.conftest import until

pytestmark = [
    COMPILED,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.parametrize("function", contract_functions(), indirect=True, scope="module"),
]


def test_an_object_is_json(function):
    answer = function.get("/json")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == {"hello": "world", "unicode": "żółw 🐢", "list": [1, 2.5, None, True]}


def test_a_string_is_text(function):
    answer = function.get("/text")
    assert answer.headers["content-type"].replace(" ", "").lower() == "text/plain;charset=utf-8"
    assert answer.content == "text ✓".encode()


def test_bytes_are_bytes(function):
    answer = function.get("/binary")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == bytes(range(256))


def test_nothing_is_no_content(function):
    answer = function.get("/empty")
    assert (answer.status_code, answer.content) == (204, b"")


def test_status_and_headers_are_the_functions(function):
    answer = function.get("/status")
    assert (answer.status_code, answer.text) == (418, "teapot")
    assert answer.headers["x-colour"] == "blue"


@pytest.mark.parametrize(
    "body", [b"", "zażółć 🐢".encode(), bytes(range(256)) * 4], ids=["empty", "unicode", "binary"]
)
def test_a_body_comes_back(function, body):
    answer = function.ask("POST", "/echo", content=body, headers={"content-type": "application/x-thing"})
    assert answer.headers["content-type"].startswith("application/x-thing")
    assert answer.content == body


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method_reaches_the_function(function, method):
    body = b"" if method in ("GET", "OPTIONS") else b"12345"
    seen = function.ask(method, "/inspect", content=body).json()
    assert (seen["method"], seen["path"], seen["length"]) == (method, "/inspect", len(body))


def test_a_head_is_answered_without_body(function):
    answer = function.ask("HEAD", "/text")
    assert (answer.status_code, answer.content) == (200, b"")


def test_query_and_headers_are_read(function):
    target = "/inspect?colour=blue&colour=red&empty=&both=a+b%26c&turtle=%F0%9F%90%A2"
    seen = function.get(target, headers={"X-Mixed-Case": "a, b"}).json()
    assert seen["query"] == {"colour": "blue", "empty": "", "both": "a b&c", "turtle": "🐢"}
    assert seen["headers"]["x-mixed-case"] == "a, b"
    assert not [name for name in seen["headers"] if name != name.lower()]


def test_five_megabytes_come_and_go(function):
    answer = function.ask("POST", "/length", content=b"x" * 5_000_000)
    assert answer.json() == {"length": 5_000_000}
    assert function.get("/large").content == b"x" * 5_000_000


def test_a_body_in_chunks_is_whole(function):
    answer = function.ask("POST", "/length", content=(b"x" * 1000 for _ in range(100)))
    assert answer.json() == {"length": 100_000}


def test_an_error_is_told(function):
    function.needs("errors")
    answer = function.get("/raise")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "function_error")
    assert "the reason ✗" in problem["detail"]


def test_a_process_outlives_an_error(function):
    before = function.get("/count").json()["count"]
    answer = function.get("/raise")
    assert answer.status_code == 500
    assert "the reason ✗" in answer.text
    assert function.get("/count").json()["count"] == before + 1


def test_health_runs_no_code_of_the_function(function):
    function.needs("health")
    before = function.get("/count").json()["count"]
    answer = function.get("/_martlet/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert function.get("/count").json()["count"] == before + 1


def test_a_stream_comes_as_it_is_written(function):
    function.needs("streaming")

    def behind() -> float:
        """Returns the seconds from the first piece to the last; none where they came as one."""
        with function.stream("/stream") as response:
            pieces = response.iter_raw()
            first = next(pieces)
            at = time.monotonic()
            assert first + b"".join(pieces) == b"one\ntwo\n"
        return time.monotonic() - at if first == b"one\n" else 0.0

    # The second piece is 300 ms behind the first; held back until the end, both would come at once. That they do once
    # in a while says only that the machine stood still.
    assert any(behind() > 0.1 for _ in range(5))


def test_the_environment_is_the_functions(function):
    assert function.get("/environment").json() == {"GREETING": "good day ☀"}


def test_what_is_logged_has_the_id_of_the_request(function):
    answer = function.get("/log")
    assert answer.text == "logged"
    streams = function.logged(answer, "to stdout ✓", "to stderr")
    assert streams["to stdout ✓"] == "stdout"
    warnings = [stream for message, stream in streams.items() if "a warning" in message]
    assert warnings == [] or warnings[0] in ("warning", "stderr")


def test_a_process_that_ends_is_replaced(function):
    answer = function.get("/crash")
    assert (answer.status_code, answer.json()["code"]) == (502, "function_crashed")
    assert function.get("/count").json() == {"count": 1}


def test_a_cold_start_waits_for_a_cell(function):
    function.end_instances()
    cold = function.get("/count")
    assert cold.json() == {"count": 1}
    assert "cell;dur" in cold.headers["server-timing"]
    assert "cell;dur" not in function.get("/count").headers["server-timing"]


def test_another_revision_replaces_the_one_before(function):
    assert function.get("/environment").headers["x-faas-revision"].endswith("1")
    function.configure(environment={"GREETING": "good night"})
    answer = function.get("/environment")
    assert answer.json() == {"GREETING": "good night"}
    assert answer.headers["x-faas-revision"].endswith("2")


def test_requests_share_an_instance_up_to_its_concurrency(function):
    function.needs("concurrency")
    function.configure(concurrency=4)
    assert function.get("/count").status_code == 200  # it has started, however long that takes
    ms = 500 * function.pace

    def together() -> float:
        """Returns the seconds that four requests at once take."""
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(function.get, [f"/sleep?ms={ms}"] * 4))
        assert [answer.json() for answer in answers] == [{"slept": ms}] * 4
        return time.monotonic() - began

    # One after the other they never take less; all at once they take longer only where the machine stood still.
    assert any(together() < 4 * ms / 1000 for _ in range(5))
    newest = max(
        instance["revision"] for instance in function.instances()
    )  # that before may not have ended yet
    assert [instance["revision"] for instance in function.instances()].count(newest) == 1


def test_lines_of_requests_at_once_have_their_own_ids(function):
    function.needs("concurrency")
    function.needs("request-ids")
    function.configure(concurrency=4, max_instances=1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: function.get(f"/say?word=word{number}"), range(8)))
    for number, answer in enumerate(answers):
        assert answer.text == "said"
        said = f"word{number} before", f"word{number} after"
        function.until_logged(answer, *said)
        words = [
            word for line in function.lines(answer) for word in re.findall(r"word\d (?:before|after)", line)
        ]
        assert sorted(words) == sorted(said), function.lines(answer)


def test_a_request_that_runs_too_long_is_ended(function):
    function.configure(timeout=1, concurrency=1)
    answer = function.get("/sleep?ms=20000")
    assert (answer.status_code, answer.json()["code"]) == (504, "function_timeout")
    # The next may take more than its second too, where the machine has much else to do.
    until(lambda: function.get("/count").json() == {"count": 1}, why="it does not answer again")
