"""The commands that show what happens, and those about the platform as a whole."""

import json

import pytest
from fake_platform import Answer, events, problem

LINE = {
    "time": 1e9,
    "function": "greeter",
    "revision": 2,
    "instance": "i1",
    "request_id": "r1",
    "stream": "stderr",
    "message": "careful",
}
RUN = {
    "id": "r1",
    "function": "greeter",
    "revision": 2,
    "status": 200,
    "cold": True,
    "started": 1e9,
    "queue_ms": 0.1,
    "start_ms": 2.0,
    "run_ms": 1234.5,
    "error": None,
}
INSTANCE = {
    "id": "i1",
    "function": "greeter",
    "revision": 2,
    "node": "lane-0",
    "driver": "process",
    "state": "idle",
    "pid": 7,
    "created": 1e9,
    "last_used": 1e9,
    "requests": 3,
    "memory_bytes": 3 * 1024**2,
}
BUILD = {
    "id": "b1",
    "function": "greeter",
    "state": "failed",
    "revision": None,
    "error": "no",
    "started": 1e9,
    "finished": 1e9,
}
RUNTIME = {
    "name": "python3.11",
    "title": "Python",
    "version": "3.11.7",
    "names": ["python", "python3.11"],
    "runs": True,
    "builds": True,
    "inline": True,
    "announced_by": ["*.py"],
    "missing": None,
    "remedy": None,
}
MISSING_RUNTIME = {
    **RUNTIME,
    "name": "ada",
    "title": "Ada",
    "version": None,
    "names": [],
    "runs": False,
    "builds": False,
    "missing": "there is no gnat in PATH",
    "remedy": "apt-get install gnat",
}
LANE = {"name": "lane-0", "state": "ready", "instances": 1, "capacity": 500, "cells": 2}
NODE = {
    "id": "5f2b7c9d0e1a",
    "host": "one",
    "address": "10.0.0.1:8000",
    "roles": ["gateway", "node", "control"],
    "version": "0.1.0",
    "rungs": ["process"],
    "runtimes": ["python3.11"],
    "cores": 2,
    "memory": 2**34,
    "load": 0.5,
    "lanes": [LANE],
    "started": 1e9,
    "state": "ready",
    "age": 60.0,
    "instances": 1,
    "capacity": 500,
    "cells": 2,
    "leader": True,
}
KEY = {
    "id": "k1",
    "name": "for tests",
    "scopes": ["manage", "invoke"],
    "functions": None,
    "rate_limit": "off",
    "trusted": False,
    "created": 1e9,
    "expires": None,
}


def test_logs_are_lines_for_people_and_ndjson_for_programs(martlet, platform):
    platform.answer("GET", "/functions/greeter/logs", [LINE])
    assert martlet("logs", "greeter").out.endswith("greeter@2 r1 stderr: careful\n")
    assert [json.loads(line) for line in martlet("logs", "greeter", "--json").out.splitlines()] == [LINE]


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[2J", "\x1b]0;title\x07", "\x1b]52;c;cm0gLXJm\x1b\\", "\x1bc", "\x9b31m", "\r", "\b" * 9],
    ids=["clear", "title", "clipboard", "reset", "c1", "return", "backspace"],
)
def test_what_a_function_prints_does_nothing_to_a_terminal(martlet, platform, hostile):
    message = f"so\t{hostile}be it"
    platform.answer("GET", "/functions/greeter/logs", [{**LINE, "message": message}])
    platform.answer("GET", "/functions/greeter/invocations", [{**RUN, "error": message}])
    platform.answer("GET", "/functions/greeter", problem(409, "conflict", message))
    assert martlet("logs", "greeter").out.endswith("stderr: so\tbe it\n")
    assert martlet("invocations", "greeter").out.rstrip().endswith("be it")
    failed = martlet("describe", "greeter")
    assert "be it" in failed.err
    shown = failed.err + martlet("logs", "greeter").out + martlet("invocations", "greeter").out
    assert not set("\x1b\x9b\r\b\x07") & set(shown)
    assert json.loads(martlet("logs", "greeter", "--json").out)["message"] == message


def test_what_the_platform_says_is_told_from_what_the_function_printed(martlet, platform):
    said = {**LINE, "stream": "error", "source": "platform", "message": "it exited"}
    platform.answer("GET", "/functions/greeter/logs", [said])
    assert martlet("logs", "greeter").out.endswith("greeter@2 r1 platform error: it exited\n")


def test_logs_of_one_request(martlet, platform):
    platform.answer("GET", "/functions/greeter/logs", [])
    assert martlet("logs", "greeter", "--request", "r1").code == 0
    assert platform.seen[0].path == "/functions/greeter/logs?tail=100&request_id=r1"


def test_logs_are_followed_until_the_platform_ends_them(martlet, platform):
    platform.answer(
        "GET", "/functions/greeter/logs", events(LINE, {**LINE, "message": "again", "stream": "stdout"})
    )
    result = martlet("logs", "greeter", "-f", "--tail", "1")
    assert [line.split(maxsplit=3)[3] for line in result.out.splitlines()] == ["stderr: careful", "again"]
    assert platform.seen[0].path == "/functions/greeter/logs?tail=1&follow=true"


def test_machines_that_do_not_answer_are_named(martlet, platform):
    platform.answer("GET", "/instances", Answer([INSTANCE], headers={"x-faas-missing": "m2, m3"}))
    result = martlet("instances", "--json")
    assert result.json == [INSTANCE]
    assert "m2, m3" in result.err
    assert "does not answer" in result.err


@pytest.mark.parametrize(
    ("words", "path", "documents", "first_row"),
    [
        (["invocations", "greeter"], "/functions/greeter/invocations", [RUN], "r1"),
        (["instances"], "/instances", [INSTANCE], "i1"),
        (["builds"], "/builds", [BUILD], "b1"),
        (["keys", "list"], "/keys", [KEY], "k1"),
        (["runtimes"], "/runtimes", [RUNTIME], "python3.11"),
        (["nodes"], "/nodes", [NODE], "5f2b7c9d0e1a"),
    ],
)
def test_listings_are_a_table_or_the_json_of_the_api(martlet, platform, words, path, documents, first_row):
    platform.answer("GET", path, documents)
    table = martlet(*words)
    assert table.code == 0
    assert table.out.splitlines()[1].split()[0] == first_row
    assert martlet(*words, "--json").json == documents
    platform.answer("GET", path, [])
    assert martlet(*words, "--json").json == []
    empty = martlet(*words)
    assert (empty.code, empty.out) == (0, "")
    assert empty.err


def test_to_drain_a_node_waits_until_it_holds_nothing(martlet, platform):
    node, other = NODE["id"], {**NODE, "id": "other"}
    platform.answer("PUT", f"/nodes/{node}/drain", NODE)
    platform.answer(
        "GET",
        "/nodes",
        [{**NODE, "instances": 2}, other],
        [{**NODE, "instances": 0}, {**other, "instances": 9}],
    )
    result = martlet("nodes", "drain", node)
    assert (result.code, result.out) == (0, "")
    assert f"martlet nodes resume {node}" in result.err
    assert "holds no instance" in result.err
    assert [each.method for each in platform.seen] == ["PUT", "GET", "GET"]


def test_a_node_is_drained_without_waiting_and_resumed(martlet, platform):
    node = NODE["id"]
    platform.answer("PUT", f"/nodes/{node}/drain", NODE)
    platform.answer("DELETE", f"/nodes/{node}/drain", Answer(b"", 204))
    assert martlet("nodes", "drain", node, "--no-wait").code == 0
    assert martlet("nodes", "resume", node).code == 0
    assert [each.method for each in platform.seen] == ["PUT", "DELETE"]
    platform.answer("PUT", f"/nodes/{node}/drain", problem(409, "conflict", "start another"))
    refused = martlet("nodes", "drain", node)
    assert refused.code == 1
    assert "start another" in refused.err


def test_a_function_is_explained_with_the_latest_decision_of_all_nodes_first(martlet, platform):
    windows = {"basis": "histogram", "linger": 60, "begin": 1620, "end": 2046}
    decision = {"revision": 2, "times": 1, "instances": 1}
    first = {**decision, "time": 1e9, "node": "lane-0", "action": "start", "reason": "a request waited"}
    later = {**decision, "time": 1e9 + 60, "node": "lane-1", "action": "end", "reason": "no call is due"}
    node = {"instances": 1, "why": "it was last called 5 s ago", "keep_alive": windows, "learned": windows}
    document = {
        "function": "greeter",
        "instances": 2,
        "min_instances": 0,
        "max_instances": 10,
        "nodes": [
            {**node, "node": "lane-0", "decisions": [first]},
            {**node, "node": "lane-1", "decisions": [later]},
        ],
    }
    platform.answer("GET", "/functions/greeter/scaling", document)
    assert martlet("explain", "greeter", "--json").json == document
    lines = martlet("explain", "greeter").out.splitlines()
    assert lines[0].split(maxsplit=1) == ["instances", "2 (0 to 10 are allowed)"]
    assert lines[1].split(maxsplit=1) == ["lane-0", "1: it was last called 5 s ago"]
    assert [line.split()[2] for line in lines[-2:]] == ["lane-1", "lane-0"]
    assert lines[-2].rstrip().endswith("no call is due")
    division = {"shares": {"n1": 6, "n2": 4}, "wanted": {"n1": 3}, "why": "about 2.0 calls at once"}
    platform.answer("GET", "/functions/greeter/scaling", document | {"division": division})
    lines = martlet("explain", "greeter").out.splitlines()
    assert lines[1].split(maxsplit=1) == ["machines", "n1 6 (at most), n2 4 (at most)"]
    assert lines[2].split(maxsplit=1) == ["expected", "3: about 2.0 calls at once"]


def test_runtimes_that_are_missing_are_listed_with_the_reason_and_what_to_install(martlet, platform):
    platform.answer("GET", "/runtimes", [RUNTIME, MISSING_RUNTIME])
    result = martlet("runtimes")
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        ["python3.11", "Python", "3.11.7", "✓", "✓", "python"],
        ["ada", "Ada", "-", "✗", "✗"],
    ]
    assert result.err == "Ada: there is no gnat in PATH; to install it: apt-get install gnat.\n"


def test_a_table_is_never_cut_off_where_there_is_no_terminal(martlet, platform):
    platform.answer("GET", "/builds", [{**BUILD, "error": "e" * 500}])
    assert "e" * 500 in martlet("builds").out


def test_what_a_person_wrote_is_not_taken_for_markup(martlet, platform):
    platform.answer("GET", "/keys", [{**KEY, "name": "[red]x[/red]"}])
    assert "[red]x[/red]" in martlet("keys", "list").out


def test_durations_and_sizes_are_readable(martlet, platform):
    platform.answer("GET", "/functions/greeter/invocations", [RUN])
    platform.answer("GET", "/instances", [INSTANCE])
    assert "1.2 s" in martlet("invocations", "greeter").out
    assert "0.10 ms" in martlet("invocations", "greeter").out
    assert "3.0 MiB" in martlet("instances").out


def test_stats_of_the_platform_and_of_one_function(martlet, platform):
    counted = {"requests": 5, "latency_ms": {"p50": 1.5, "p99": None}, "missing": []}
    platform.answer("GET", "/stats", counted)
    platform.answer("GET", "/stats/functions/greeter", {"requests": 2})
    shown = dict(line.split() for line in martlet("stats").out.splitlines())
    assert shown == {"requests": "5", "latency_ms.p50": "1.5"}
    assert martlet("stats", "greeter", "--json").json == {"requests": 2}


def test_an_instance_is_stopped_by_its_id(martlet, platform):
    platform.answer("DELETE", "/instances/i1", Answer(b"", 204))
    assert martlet("instances", "stop", "i1").code == 0
    assert platform.requests("DELETE")[0].path == "/instances/i1"


def test_the_log_of_a_build_is_printed(martlet, platform):
    platform.answer("GET", "/builds/b1/logs", events({"message": "one"}, {"message": "two"}))
    assert martlet("builds", "log", "b1").out == "one\ntwo\n"


def test_a_key_is_made_and_only_its_secret_is_on_stdout(martlet, platform):
    platform.answer("POST", "/keys", Answer({**KEY, "secret": "mk_secret"}, 201))
    words = [
        "--scope",
        "invoke",
        "--scope",
        "manage",
        "--function",
        "greeter",
        "--expires-in",
        "2h",
        "--trusted",
    ]
    result = martlet("keys", "create", "for tests", *words, "--rate-limit", "10/s")
    assert result.out == "mk_secret\n"
    assert "k1" in result.err
    (made,) = platform.requests("POST")
    expires = made.json.pop("expires")
    assert expires > 1.7e9
    assert {key: value for key, value in made.json.items() if key != "expires"} == {
        "name": "for tests",
        "scopes": ["invoke", "manage"],
        "functions": ["greeter"],
        "trusted": True,
        "rate_limit": "10/s",
    }


def test_a_key_may_invoke_and_nothing_else_by_default(martlet, platform):
    platform.answer("POST", "/keys", Answer({**KEY, "secret": "mk_secret"}, 201))
    assert martlet("keys", "create", "x", "--json").json["secret"] == "mk_secret"
    assert platform.requests("POST")[0].json["scopes"] == ["invoke"]


def test_a_key_is_rotated_with_an_overlap_and_revoked(martlet, platform):
    platform.answer("POST", "/keys/k1/rotate", {**KEY, "secret": "mk_new"})
    platform.answer("DELETE", "/keys/k1", Answer(b"", 204))
    assert martlet("keys", "rotate", "k1", "--overlap", "15m").out == "mk_new\n"
    assert platform.requests("POST")[0].json == {"overlap": 900.0}
    assert martlet("keys", "revoke", "k1").code == 0


@pytest.mark.parametrize("time", ["soon", "1y", "-1s", ""])
def test_a_time_that_is_none_is_a_wrong_option(martlet, platform, time):
    assert martlet("keys", "rotate", "k1", "--overlap", time).code == 2
    assert platform.seen == []


def test_the_scopes_of_the_command_line_are_those_of_the_platform():
    from martlet.cli.keys import ScopeName
    from martlet.model import Scope

    assert [scope.value for scope in ScopeName] == [scope.value for scope in Scope]


def test_version(martlet):
    from martlet import __version__

    assert martlet("version").out == f"martlet {__version__}\n"


def test_a_well_known_key_has_no_date(martlet, platform):
    platform.answer("GET", "/keys", [KEY | {"created": 0.0}])
    assert "1970" not in martlet("keys", "list").out
