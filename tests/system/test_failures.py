"""Every row of the table of failures, with a real server and a real client."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from martlet.scheduling.backoff import FIRST, FREE
from tests.system.conftest import until

RAISES = "def handle(request):\n    raise ValueError('no such luck')\n"


def assert_problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert "Traceback" not in response.text
    assert "/site-packages/" not in response.text
    return problem


def test_no_key_and_an_unknown_key_are_unauthenticated(platform):
    for key in (None, "nonsense"):
        for path in ("/functions", "/invoke/anything"):
            response = platform.client_for(key).get(path)
            assert_problem(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_without_the_scope_is_forbidden(platform):
    platform.deploy("scoped", "def handle(request):\n    return 1\n")
    made = platform.admin.post("/keys", json={"name": "invoker", "scopes": ["invoke"]}).json()
    client = platform.client_for(made["secret"])
    assert client.post("/invoke/scoped").status_code == 200
    assert_problem(client.get("/functions"), 403, "forbidden")
    assert_problem(platform.client.get("/keys"), 403, "forbidden")


def test_a_key_for_one_function_cannot_invoke_another(platform):
    platform.deploy("mine", "def handle(request):\n    return 1\n")
    platform.deploy("yours", "def handle(request):\n    return 1\n")
    body = {"name": "limited", "scopes": ["invoke", "manage"], "functions": ["mine"]}
    client = platform.client_for(platform.admin.post("/keys", json=body).json()["secret"])
    assert client.post("/invoke/mine").status_code == 200
    assert_problem(client.post("/invoke/yours"), 403, "forbidden")
    assert_problem(client.delete("/functions/yours"), 403, "forbidden")
    assert [f["name"] for f in client.get("/functions").json()] == ["mine"]


@pytest.mark.parametrize("name", ["nobody", "nobody@1", "Bad_Name", "%2e%2e", "x" * 300, "a%00b"])
def test_an_unknown_function_is_not_found(platform, name):
    assert_problem(platform.invoke(name), 404, "function_not_found")


def test_an_unknown_revision_or_alias_is_not_found(platform):
    platform.deploy("known", "def handle(request):\n    return 1\n")
    for reference in ("known@99", "known@nope", "known@"):
        assert_problem(platform.invoke(reference), 404, "function_not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"config": {"memory": "lots"}}, "config.memory"),
        ({"config": {"memory": "1Ki"}}, "config.memory"),
        ({"config": {"timeout": -1}}, "config.timeout"),
        ({"config": {"cpu_limit": "fast"}}, "config.cpu_limit"),
        ({"config": {"execution_mode": "teapot"}}, "config.execution_mode"),
        ({"config": {"execution_mode": "wasm"}}, "config.execution_mode"),
        ({"config": {"runtime": "cobol"}}, "config.runtime"),
        ({"config": {"min_instances": 5, "max_instances": 1}}, "config"),
        ({"config": {"environment": {"LD_PRELOAD": "/x"}}}, "config.environment"),
        ({"config": {"no_such_key": 1}}, "config.no_such_key"),
        ({"code": None}, "code"),
    ],
)
def test_bad_input_names_its_field_and_stores_nothing(platform, change, field):
    body = {"name": "invalid", "code": "def handle(request): return 1", "config": {}} | change
    response = platform.client.post("/functions", json=body)
    assert response.status_code in (400, 422), response.text
    assert response.json()["field"].startswith(field)
    assert platform.client.get("/functions/invalid").status_code == 404


def test_a_body_that_is_not_json_is_refused(platform):
    response = platform.client.post("/functions", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)


def test_a_handler_that_raises_is_a_function_error_and_its_process_lives_on(platform):
    platform.deploy("raises", RAISES)
    first = platform.invoke("raises")
    problem = assert_problem(first, 500, "function_error")
    assert problem["detail"] == "ValueError: no such luck"
    assert first.headers["x-faas-revision"] == "1"
    before = [i["pid"] for i in platform.instances("raises")]
    assert_problem(platform.invoke("raises"), 500, "function_error")
    assert [i["pid"] for i in platform.instances("raises")] == before
    logs = platform.client.get("/functions/raises/logs", params={"request_id": first.headers["x-request-id"]})
    assert any("Traceback" in line["message"] for line in until(logs.json, why="no log"))


def test_code_that_does_not_load_is_refused_by_the_deploy_and_the_old_revision_serves_on(platform):
    platform.deploy("loads", "def handle(request):\n    return 'old'\n")
    for broken in (
        "import nonsense_module\ndef handle(r): pass",
        "def handle(:",
        "x = 1",
        "raise RuntimeError('at load')",
    ):
        response = platform.client.put("/functions/loads", json={"code": broken})
        assert_problem(response, 502, "function_load_failed")
        assert platform.invoke("loads").text == "old"
    assert platform.client.get("/functions/loads").json()["latest"] == 1


def test_an_instance_that_dies_is_a_crash_and_is_replaced_at_once(platform):
    platform.deploy(
        "dies", "import os\ndef handle(r):\n    if r.get_text() == 'die': os._exit(3)\n    return 'alive'\n"
    )
    problem = assert_problem(platform.invoke("dies", content=b"die"), 502, "function_crashed")
    assert "code 3" in problem["detail"]
    assert platform.invoke("dies").text == "alive"


def test_instances_that_die_one_after_the_other_are_replaced_ever_later_until_one_answers(platform):
    platform.deploy(
        "dying", "import os\ndef handle(r):\n    if r.get_text() == 'die': os._exit(3)\n    return 'alive'\n"
    )

    def deaths(count):
        took = []
        for _ in range(count):
            began = time.monotonic()
            assert_problem(platform.invoke("dying", content=b"die"), 502, "function_crashed")
            took.append(time.monotonic() - began)
        return took

    def pauses():
        nodes = platform.client.get("/functions/dying/scaling").json()["nodes"]
        decisions = [each for node in nodes for each in node["decisions"]]
        return {each["time"] for each in decisions if "one after the other" in each["reason"]}

    deaths(FREE)
    assert not pauses()
    later = deaths(4)[1:]
    assert all(took > pause for took, pause in zip(later, (FIRST, 2 * FIRST, 4 * FIRST), strict=True)), later
    assert len(told := pauses()) == 4
    assert platform.invoke("dying").text == "alive"
    for _ in range(2 * FREE):  # who answers in between is well
        deaths(1)
        assert platform.invoke("dying").text == "alive"
    assert pauses() <= told  # of which the oldest may be forgotten


def test_who_dies_again_and_again_is_waited_for_by_all_of_its_callers(platform):
    platform.deploy("bursting", "import os\ndef handle(r):\n    os._exit(3)\n", max_instances=4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: platform.invoke("bursting"), range(FREE + 4)))
    for answer in answers:
        assert_problem(answer, 502, "function_crashed")


def test_how_an_instance_died_is_said_where_nobody_buries_it_at_once(platform):
    platform.deploy("unburied", "import os\ndef handle(r):\n    os._exit(3)\n")
    (instance,) = platform.instances("unburied")
    status = Path(f"/proc/{instance['pid']}/status").read_text()
    zygote = int(status.split("PPid:")[1].split()[0])
    os.kill(zygote, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (zygote, signal.SIGCONT)).start()
    problem = assert_problem(platform.invoke("unburied"), 502, "function_crashed")
    assert "code 3" in problem["detail"]


def test_an_instance_over_its_memory_is_out_of_memory_and_is_replaced(platform):
    code = (
        "def handle(r):\n    if r.get_text() == 'eat': x = bytearray(500 * 1024 * 1024)\n    return 'alive'\n"
    )
    platform.deploy("eats", code, memory="64Mi")
    response = platform.invoke("eats", content=b"eat")
    problem = assert_problem(response, 502, "function_out_of_memory")
    assert "64 MiB" in problem["detail"]
    assert platform.invoke("eats").text == "alive"


def test_a_deadline_kills_the_instance_and_does_not_wait_for_it(platform):
    code = "import time\ndef handle(r):\n    if r.get_text() == 'sleep': time.sleep(60)\n    return 'alive'\n"
    platform.deploy("sleeps", code, timeout=3)  # in which it answers on a busy machine too
    assert platform.invoke("sleeps").text == "alive"
    before = {i["id"] for i in platform.instances("sleeps")}
    began = time.monotonic()
    assert_problem(platform.invoke("sleeps", content=b"sleep"), 504, "function_timeout")
    assert time.monotonic() - began < 30
    until(lambda: not before & {i["id"] for i in platform.instances("sleeps")}, why="the instance lives on")
    assert platform.invoke("sleeps").text == "alive"


def test_a_function_that_spins_or_ignores_sigterm_is_killed_at_its_deadline(platform):
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef handle(r):\n    while True: pass\n"
    )
    platform.deploy("spins", code, timeout=0.5)
    assert_problem(platform.invoke("spins"), 504, "function_timeout")
    until(lambda: not platform.instances("spins"), why="the instance lives on")


def test_a_body_over_the_limit_is_refused_before_it_is_read(platform):
    platform.deploy("bodies", "def handle(r):\n    return str(len(r.body))\n")
    assert platform.invoke("bodies", content=bytes(20 * 1024 * 1024)).text == str(20 * 1024 * 1024)
    assert_problem(platform.invoke("bodies", content=bytes(20 * 1024 * 1024 + 1)), 413, "body_too_large")


def test_a_full_queue_answers_overloaded_with_a_hint_to_retry_and_counts_that(platform):
    def counted():
        text = platform.client.get("/metrics").text
        found = re.search(
            r'^martlet_refused_requests_total{error="overloaded"} ([0-9.]+)$', text, re.MULTILINE
        )
        return float(found[1]) if found else 0

    code = "import time\ndef handle(r):\n    time.sleep(1)\n    return 1\n"
    platform.deploy("queues", code, max_instances=1, max_queue=2)
    platform.invoke("queues")
    before = counted()
    responses = []
    threads = [
        threading.Thread(target=lambda: responses.append(platform.invoke("queues"))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [r for r in responses if r.status_code == 429]
    assert refused
    assert any(r.status_code == 200 for r in responses)
    for response in refused:
        assert_problem(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    until(lambda: counted() == before + len(refused), why=f"not {len(refused)} of them are counted")


def test_a_rate_limit_holds_over_all_lanes(platform):
    platform.deploy("rated", "def handle(r):\n    return 1\n", rate_limit="10/h")
    responses = []
    for _ in range(20):
        with platform.client_for(platform.key) as client:  # a connection each, so that every lane gets some
            responses.append(client.post("/invoke/rated"))
    assert sum(r.status_code == 200 for r in responses) == 10
    refused = next(r for r in responses if r.status_code != 200)
    assert_problem(refused, 429, "rate_limited")
    assert int(refused.headers["retry-after"]) >= 1


@pytest.fixture(scope="module")
def small(make_platform):
    """A platform that has hardly anything."""
    platform = make_platform(
        lanes=1, max_concurrent_functions=1, min_cells=0, disable_container=True, disable_microvm=True
    )
    platform.start()
    return platform


@pytest.mark.parametrize("mode", ["container", "microvm"])
def test_what_is_disabled_is_refused_by_its_field(small, mode):
    code = "def handle(r):\n    return 1\n"
    answer = small.client.post(
        "/functions", json={"name": "none", "code": code, "config": {"execution_mode": mode}}
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "config.execution_mode")
    assert not list(small.settings.run_directory.glob("lane-0/*.keeper"))


def test_a_lane_that_is_full_answers_no_capacity(small):
    platform = small
    slow = "import time\ndef handle(r):\n    time.sleep(float(r.get_text() or 0))\n    return 1\n"
    platform.deploy("first", slow)
    platform.deploy("second", slow)
    looked = threading.Event()

    def body():
        yield b""
        looked.wait(60)
        yield b"0"

    busy = threading.Thread(target=lambda: platform.invoke("first", content=body()))
    busy.start()
    try:
        until(lambda: any(i["state"] == "busy" for i in platform.instances("first")), why="not busy")
        response = platform.invoke("second")
    finally:
        looked.set()
        busy.join()
    assert_problem(response, 503, "no_capacity")
    assert int(response.headers["retry-after"]) >= 1
    assert platform.invoke("second").status_code == 200
