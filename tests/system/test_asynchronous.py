"""Asynchronous invocation: answered at once, run later, tried again, and never lost, whatever is killed."""

import os
import signal
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.system.conftest import Platform, until

LATER = {"Prefer": "respond-async"}
ECHO = """
def handle(request):
    print("ran", request.get_text())
    seen = {name: request.get_header(name) for name in ("x-request-id", "x-faas-attempt", "prefer", "x-mine")}
    return {"body": request.get_text(), "path": request.path, "method": request.method, "seen": seen}
"""
SLOW = """
import time
def handle(request):
    time.sleep(float(request.query_params.get("seconds", 0.1)))
    return request.get_text()
"""
MANY = 24

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def platform(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(async_attempts=3, async_retry=0.1, async_queue=MANY, async_max_body=2048)
    platform.start()
    platform.deploy("echo", ECHO)
    platform.deploy("slow", SLOW, max_instances=2)
    return platform


def later(platform: Platform, name: str, **request: Any) -> str:
    """Lets a function run later; returns the id of the invocation."""
    answer = platform.invoke(name, headers=LATER, **request)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def look(platform: Platform, invocation: str) -> dict[str, Any]:
    answer = platform.client.get(f"/invocations/{invocation}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(platform: Platform, invocation: str, within: float = 40) -> dict[str, Any]:
    """Returns an invocation once it has ended."""

    def look_again() -> dict[str, Any] | None:
        found = platform.client.get(f"/invocations/{invocation}")
        return found.json() if found.status_code == 200 and found.json()["state"] != "waiting" else None

    return until(look_again, within=within, why=f"{invocation} did not end")


@pytest.mark.parametrize("connection", range(3))  # of their own, so that each lane is asked
def test_a_request_is_answered_at_once_and_run_as_any_other(platform: Platform, connection: int) -> None:
    headers = {**LATER, "X-Mine": "mine"}
    with platform.client_for(platform.key) as client:
        answer = client.put("/invoke/echo/a/path?q=1", content=b"hello", headers=headers)
    assert answer.status_code == 202
    invocation = answer.json()["id"]
    assert answer.headers["location"] == f"/invocations/{invocation}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.headers["x-request-id"] == invocation
    outcome = ended(platform, invocation)
    assert (outcome["state"], outcome["attempts"], outcome["error"]) == ("succeeded", 1, None)
    assert outcome["answer"]["status"] == 200
    assert ["x-faas-revision", "1"] in outcome["answer"]["headers"]
    seen = httpx2.Response(200, text=outcome["answer"]["body"]).json()
    assert seen == {
        "body": "hello",
        "path": "/a/path",
        "method": "PUT",
        "seen": {"x-request-id": invocation, "x-faas-attempt": "1", "prefer": None, "x-mine": "mine"},
    }
    runs = until(lambda: platform.client.get("/functions/echo/invocations").json())
    assert [run["status"] for run in runs if run["id"] == invocation] == [200]
    lines = until(lambda: platform.client.get(f"/functions/echo/logs?request_id={invocation}").json())
    assert "ran hello" in [line["message"] for line in lines]


def test_without_the_preference_the_same_connection_waits(platform: Platform) -> None:
    with platform.client_for(platform.key) as client:
        for headers, status in (({}, 200), (LATER, 202), (LATER, 202), ({}, 200)):
            assert client.post("/invoke/echo", content=b"same", headers=headers).status_code == status
        answer = client.post("/functions/echo/run", content=b"", headers=LATER)
    assert answer.status_code == 200, "elsewhere the preference is the function's own"
    assert answer.json()["seen"]["prefer"] == "respond-async"


def test_what_fails_becomes_a_dead_letter_that_can_be_retried(platform: Platform) -> None:
    platform.deploy("mended", "def handle(request):\n    raise KeyError('broken')\n")
    invocation = later(platform, "mended", content=b"order 7")
    outcome = ended(platform, invocation)
    assert (outcome["state"], outcome["attempts"], outcome["answer"]) == ("failed", 3, None)
    assert outcome["error"]["code"] == "function_error"
    assert "KeyError" in outcome["error"]["detail"]
    letters = "/functions/mended/dead-letters"
    (letter,) = until(lambda: platform.client.get(letters).json())
    assert (letter["id"], letter["attempts"], letter["bytes"]) == (invocation, 3, len(b"order 7"))
    text = platform.client.get("/metrics").text
    assert 'martlet_async_invocations{function="mended",state="dead"} 1.0' in text
    assert 'martlet_async_attempts_total{function="mended",outcome="dead"} 1.0' in text
    platform.deploy("mended", ECHO)
    assert platform.client.post(f"{letters}/{invocation}/retry").status_code == 204
    assert ended(platform, invocation)["state"] == "succeeded"
    assert platform.client.get(letters).json() == []
    assert platform.client.post(f"{letters}/{invocation}/retry").status_code == 404


def test_what_cannot_be_taken_is_refused(platform: Platform) -> None:
    too_large = platform.invoke("echo", content=b"x" * 2049, headers=LATER)
    assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
    chunked = platform.invoke("echo", content=iter([b"x" * 1500] * 2), headers=LATER)
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")
    assert platform.invoke("nothing", headers=LATER).status_code == 404
    with platform.client_for(None) as stranger:
        assert stranger.post("/invoke/echo", headers=LATER).status_code == 401
    large = ended(platform, later(platform, "slow", content=b"x" * 2048))
    assert len(large["answer"]["body"]) == 2048


def test_a_key_that_may_invoke_may_look_at_what_it_may_invoke(platform: Platform) -> None:
    wanted = {"name": "caller", "scopes": ["invoke"], "functions": ["echo"]}
    secret = platform.admin.post("/keys", json=wanted).json()["secret"]
    with platform.client_for(secret) as caller:
        mine = caller.post("/invoke/echo", headers=LATER).json()["id"]
        assert caller.get(f"/invocations/{mine}").status_code == 200
        others = later(platform, "slow")
        assert caller.get(f"/invocations/{others}").status_code == 404
        assert caller.get("/functions/echo/dead-letters").status_code == 403


def test_a_queue_that_is_full_says_so_and_what_it_has_is_run(platform: Platform) -> None:
    platform.deploy("full", SLOW, max_instances=2)
    accepted, refused = [], []
    while not refused:
        answer = platform.invoke("full?seconds=0.4", content=b"%d" % len(accepted), headers=LATER)
        (accepted if answer.status_code == 202 else refused).append(answer)
        assert len(accepted) <= 3 * MANY
    assert (refused[0].status_code, refused[0].json()["code"]) == (429, "overloaded")
    assert int(refused[0].headers["retry-after"]) >= 1
    assert len(accepted) >= MANY
    outcomes = [ended(platform, answer.json()["id"]) for answer in accepted]
    assert [each["answer"]["body"] for each in outcomes] == [str(number) for number in range(len(accepted))]


def test_what_is_asked_under_the_same_key_is_run_once(platform: Platform) -> None:
    platform.deploy("once", ECHO)
    headers = {**LATER, "Idempotency-Key": "order 9"}
    ids = {platform.invoke("once", content=b"once", headers=headers).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    ended(platform, ids.pop())
    assert len(until(lambda: platform.client.get("/functions/once/invocations").json())) == 1


def test_nothing_accepted_is_lost_when_lanes_and_then_everything_are_killed(platform: Platform) -> None:
    platform.deploy("steady", SLOW, max_instances=2)
    accepted = [later(platform, "steady?seconds=0.5", content=b"%d" % n) for n in range(MANY)]
    before = platform.children()
    os.kill(before["lane-0"], signal.SIGKILL)
    until(lambda: platform.children().get("lane-0") not in (None, before["lane-0"]))
    until(lambda: any(look(platform, each)["state"] == "succeeded" for each in accepted))
    process = platform.process
    assert process is not None
    for pid in (process.pid, *platform.children().values()):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    platform.start()
    outcomes = [ended(platform, each, within=90) for each in accepted]
    assert {each["state"] for each in outcomes} == {"succeeded"}
    assert [each["answer"]["body"] for each in outcomes] == [str(n) for n in range(MANY)]


def test_what_waits_for_a_function_goes_with_it(platform: Platform) -> None:
    platform.deploy("doomed", SLOW, max_instances=1)
    waiting = [later(platform, "doomed?seconds=20") for _ in range(4)]
    assert platform.client.delete("/functions/doomed").status_code == 204
    platform.deploy("doomed", ECHO)
    assert look(platform, waiting[-1])["state"] == "failed"
    assert platform.client.get("/functions/doomed/dead-letters").json() == []
    assert platform.client.get("/functions/doomed/invocations").json() == []
