"""What the platform says itself in the log of a function: what became of an instance, as its callers are told."""

import socket
import threading

import pytest

from tests.system.conftest import until

PRINTS = "import os, time\n\ndef handle(r):\n    print('before')\n    os.write(1, b'no end')\n"
DIES = "import os, time\n\ndef handle(r):\n    time.sleep(1)\n    os._exit(3)\n"
LATE = "import asyncio\n\nasync def handle(r):\n    await asyncio.sleep(60)\n"
LOADS = """import os, socket
print('loading')
socket.create_connection(('127.0.0.1', {port})).close()

def handle(r):
    os._exit(0)
"""


@pytest.fixture(scope="module")
def platform(make_platform):
    """One that allows functions what a test changes under them."""
    platform = make_platform(allow_host_network=True)
    platform.start()
    return platform


def lines_of(platform, name, **wanted):
    return platform.client.get(f"/functions/{name}/logs", params=wanted).json()


def said(platform, name, count=1):
    """Waits until there are so many lines of the platform, and returns them."""

    def found():
        lines = [line for line in lines_of(platform, name) if line["source"] == "platform"]
        return lines if len(lines) >= count else None

    return until(found, why=f"the platform says nothing about {name}")


def at_once(platform, name, count):
    """Returns the answers to so many calls at the same time."""
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(platform.invoke(name))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize(
    ("name", "does", "config", "code", "words"),
    [
        ("late", "time.sleep(60)", {"timeout": 1}, "function_timeout", "timeout of 1 s"),
        ("leaves", "os._exit(3)", {}, "function_crashed", "code 3"),
        ("killed", "__import__('ctypes').string_at(0)", {}, "function_crashed", "signal 11"),
        ("hungry", "bytearray(500 << 20)", {"memory": "64Mi"}, "function_out_of_memory", "64 MiB"),
    ],
)
def test_what_an_instance_ended_of_is_the_last_line_of_its_request(platform, name, does, config, code, words):
    platform.deploy(name, f"{PRINTS}    {does}\n", **config)
    answer = platform.invoke(name)
    problem = answer.json()
    assert problem["code"] == code
    (line,) = said(platform, name)
    assert line["message"] == problem["detail"]
    assert words in line["message"]
    assert (line["stream"], line["request_id"]) == ("error", problem["request_id"])
    of_instance = [one for one in lines_of(platform, name) if one["instance"] == line["instance"]]
    assert [one["message"] for one in of_instance] == ["before", "no end", line["message"]]
    assert {one["source"] for one in of_instance[:-1]} == {"function"}
    assert lines_of(platform, name, request_id=problem["request_id"])[-1] == line


def test_an_asynchronous_invocation_that_fails_is_told_as_well(platform):
    platform.deploy("later", f"{PRINTS}    os._exit(3)\n")
    accepted = platform.invoke("later", headers={"prefer": "respond-async"})
    assert accepted.status_code == 202
    (line,) = said(platform, "later")
    assert "code 3" in line["message"]
    assert line["request_id"] == accepted.json()["id"]


def test_one_crash_is_one_line_however_many_calls_it_cuts_short(platform):
    platform.deploy("crowded", DIES, concurrency=5, max_instances=1, timeout=60)
    answers = at_once(platform, "crowded", 5)
    assert {answer.json()["code"] for answer in answers} == {"function_crashed"}
    lines = said(platform, "crowded")
    assert all("code 3" in line["message"] for line in lines)
    instances = [line["instance"] for line in lines]
    assert len(set(instances)) == len(instances) < len(answers)


def test_a_crash_is_told_as_such_whichever_of_its_connections_breaks_first(platform):
    code = (
        "import os, time\n\ndef handle(r):\n    if r.get_text(): os._exit(3)\n"
        "    time.sleep(0.3)\n    return 'alive'\n"
    )
    platform.deploy("idles", code, concurrency=5, max_instances=1)
    for _ in range(5):
        at_once(platform, "idles", 5)  # so that all its connections are there
        assert "code 3" in platform.invoke("idles", content=b"die").json()["detail"]
    lines = said(platform, "idles", 5)
    assert len(lines) == 5
    assert all("code 3" in line["message"] and line["request_id"] for line in lines)


def test_one_line_tells_of_calls_that_are_late_together(platform):
    platform.deploy("late-together", LATE, concurrency=5, max_instances=1, timeout=2)
    answers = at_once(platform, "late-together", 5)
    assert {answer.status_code for answer in answers} <= {504, 502}
    lines = said(platform, "late-together")
    instances = [line["instance"] for line in lines]
    assert len(set(instances)) == len(instances) < len(answers)
    assert all("timeout of 2 s" in line["message"] for line in lines)
    assert {line["request_id"] for line in lines} <= {answer.json()["request_id"] for answer in answers}


def test_a_start_that_fails_is_told_behind_what_it_printed_and_not_for_every_call(platform):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = LOADS.format(port=listener.getsockname()[1])
        platform.deploy("starts", code, network="host", max_instances=1)
    platform.invoke("starts")
    until(lambda: not platform.instances("starts"), why="the instance lives on")
    (crash,) = said(platform, "starts")
    answer = platform.invoke("starts")
    problem = answer.json()
    assert problem["code"] == "function_load_failed"
    line = said(platform, "starts", 2)[-1]
    assert line != crash
    assert problem["detail"] in line["message"]
    assert (line["stream"], line["request_id"]) == ("error", problem["request_id"])
    messages = [one["message"] for one in lines_of(platform, "starts")]
    assert messages.index(line["message"]) > messages.index("loading")
    assert messages[-1] == line["message"]

    answers = [answer for _ in range(20) for answer in at_once(platform, "starts", 4)]
    assert {answer.json()["code"] for answer in answers} == {"function_load_failed"}
    started = sum(one["message"] == "loading" for one in lines_of(platform, "starts", tail=10_000))
    assert len(said(platform, "starts")) < started


def test_functions_cannot_speak_for_the_platform(platform):
    code = (
        "import os\n\ndef handle(r):\n"
        """    frame = b'\\x1e{"t":0,"id":null,"s":"error","m":"forged","source":"platform"}\\n'\n"""
        "    os.write(1, frame)\n"
    )
    platform.deploy("forges", code)
    platform.invoke("forges")
    lines = until(lambda: lines_of(platform, "forges"), why="nothing is logged")
    assert [(line["message"], line["source"]) for line in lines] == [("forged", "function")]
