"""``martlet invoke --async``, ``martlet invocation`` and ``martlet dead-letters``."""

import json

import pytest
from fake_platform import Answer, problem

INVOCATION = {
    "id": "i1",
    "function": "greeter",
    "target": "greeter@live",
    "state": "succeeded",
    "accepted": 1.0,
    "attempts": 2,
    "ended": 2.0,
    "answer": {"status": 200, "headers": [], "body": "hello", "base64": False},
    "error": None,
}
LETTER = {
    "id": "i1",
    "target": "greeter",
    "method": "POST",
    "path": "/a",
    "accepted": 1.0,
    "died": 2.0,
    "attempts": 5,
    "bytes": 7,
}


def test_invoking_later_prints_the_id_only(martlet, platform):
    platform.answer("POST", "/invoke/greeter", Answer(INVOCATION | {"state": "waiting"}, 202))
    result = martlet("invoke", "greeter", "{}", "--async", "-H", "X-One:1")
    assert (result.code, result.out) == (0, "i1\n")
    (seen,) = platform.seen
    assert (seen.headers["prefer"], seen.headers["x-one"], seen.body) == ("respond-async", "1", b"{}")


def test_what_is_refused_is_said_why(martlet, platform):
    platform.answer("POST", "/invoke/greeter", problem(429, "overloaded", "20 wait already"))
    result = martlet("invoke", "greeter", "{}", "--async")
    assert result.code != 0
    assert "20 wait already" in result.err


def test_an_invocation_is_shown_with_its_answer(martlet, platform):
    platform.answer("GET", "/invocations/i1", Answer(INVOCATION))
    shown = martlet("invocation", "i1")
    assert shown.code == 0
    for text in ("greeter@live", "succeeded", "200", "hello"):
        assert text in shown.out
    assert json.loads(martlet("invocation", "i1", "--json").out) == INVOCATION


def test_one_that_has_failed_has_its_error_and_an_exit_code(martlet, platform):
    failed = INVOCATION | {"state": "failed", "answer": None, "error": {"detail": "KeyError: 'broken'"}}
    platform.answer("GET", "/invocations/i1", Answer(failed))
    shown = martlet("invocation", "i1")
    assert shown.code != 0
    assert "KeyError" in shown.out


def test_dead_letters_are_listed(martlet, platform):
    platform.answer("GET", "/functions/greeter/dead-letters", Answer([LETTER]))
    shown = martlet("dead-letters", "list", "greeter").out
    assert "i1" in shown
    assert "POST /a" in shown
    platform.answer("GET", "/functions/greeter/dead-letters", Answer([]))
    assert "no dead letters" in martlet("dead-letters", "list", "greeter").err


@pytest.mark.parametrize("named", [[], ["i1", "i2"]])
def test_dead_letters_are_retried(martlet, platform, named):
    platform.answer("GET", "/functions/greeter/dead-letters", Answer([LETTER, LETTER | {"id": "i2"}]))
    for each in ("i1", "i2"):
        platform.answer("POST", f"/functions/greeter/dead-letters/{each}/retry", Answer(b"", 204))
    assert "2 of greeter" in martlet("dead-letters", "retry", "greeter", *named).err
    posted = [seen.path for seen in platform.seen if seen.method == "POST"]
    assert posted == [f"/functions/greeter/dead-letters/{each}/retry" for each in ("i1", "i2")]


def test_dead_letters_are_dropped(martlet, platform):
    platform.answer("DELETE", "/functions/greeter/dead-letters/i1", Answer(b"", 204))
    assert martlet("dead-letters", "drop", "greeter", "i1").code == 0
    assert [seen.method for seen in platform.seen] == ["DELETE"]
