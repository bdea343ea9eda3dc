"""A response that the Python shim writes in one step is the one that it writes in several."""

from typing import Any

import pytest

from martlet.runtimes.python._martlet_python.http1 import Head
from martlet.runtimes.python._martlet_python.response import at_once, respond

POST = Head(b"POST / HTTP/1.1\r\n")


class Text(str):
    """What is a str and may be something else, too."""


@pytest.mark.parametrize("result", ["", "text", "\N{SNOWMAN}", "%d %b", {}, {"a": [1, None]}, [], ["%"]])
def test_it_is_the_same_in_one_step(result: Any) -> None:
    response = respond(result)
    assert isinstance(response.body, bytes)
    assert at_once(POST, result) == response.whole(POST, response.body)


@pytest.mark.parametrize(
    "head",
    [b"HEAD / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nconnection: close\r\n", b"POST / HTTP/1.0\r\n"],
)
def test_what_is_framed_in_another_way_takes_more_steps(head: bytes) -> None:
    assert at_once(Head(head), "text") is None


@pytest.mark.parametrize("result", [None, b"bytes", ("text", 201), Text("text"), 1, iter(())])
def test_what_is_to_be_looked_at_takes_more_steps(result: Any) -> None:
    assert at_once(POST, result) is None


@pytest.mark.parametrize("result", [{"a": object()}, [float("nan")]])
def test_what_has_no_json_is_refused(result: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        at_once(POST, result)
