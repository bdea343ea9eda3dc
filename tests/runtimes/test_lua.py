"""What the shim of Lua brings because Lua has none: JSON, and pipes that functions cannot disturb."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from martlet import runtimes
from tests.conftest import require

FOLDER = Path(runtimes.__file__).resolve().parent / "lua"


@pytest.fixture(scope="module")
def lua():
    """The interpreter."""
    program = shutil.which("lua5.4")
    require(program, "lua5.4 is not installed")
    return program


def recoded(lua, document):
    """Reads JSON in Lua and writes it again. Returns the process, ended."""
    code = 'local json = require("martlet.json") io.write(json.encode(json.decode(io.read("a"))))'
    return subprocess.run(
        [lua, "-e", f'package.path = "{FOLDER}/?.lua"', "-e", code],
        input=document.encode(),
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        [[], {}, [None]],
        {"": " ", "a": {"b": [True, False, None]}},
        [0, -1, 2**63 - 1, 0.1, -2.5e-300, 1e300],
        'quote " backslash \\ slash / control \x00\x1f\x7f\b\f\n\r\t żółw 🐢 \u2028',
    ],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_json_is_read_and_written_without_loss(lua, value, ascii_only):
    answer = recoded(lua, f" {json.dumps(value, ensure_ascii=ascii_only, indent=1)}\n")
    assert json.loads(answer.stdout) == value, answer.stderr


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[",
        "[1,]",
        "[1 2]",
        '{"a"}',
        '{"a":1,}',
        "{a:1}",
        '"',
        '"\n"',
        r'"\x"',
        r'"\u12"',
        "01",
        "1.",
        "-",
        "nul",
        "1 2",
        "[" * 100000,
    ],
)
def test_what_is_not_json_is_refused(lua, document):
    answer = recoded(lua, document)
    assert (answer.returncode, answer.stdout) == (1, b"")
    assert b" at byte " in answer.stderr


def served(lua, folder, requests):
    """Has the shim answer requests with the function in a folder. Returns the process, ended."""
    start = tomllib.loads((FOLDER / "runtime.toml").read_text())["start"]["command"]
    command = [part.format(program=lua, runtime=FOLDER) for part in start]
    return subprocess.run(
        ["bash", "-c", f'exec "$@" 4>{folder}/answer', "bash", *command],
        input=requests,
        capture_output=True,
        cwd=folder,
        env={"MARTLET_HANDLER": "handle", "PATH": "/usr/bin:/bin"},
        check=True,
    )


def test_a_body_that_is_no_json_is_a_problem_of_the_request(lua, tmp_path):
    (tmp_path / "handler.lua").write_text("return function(request) return request:json() end")
    request = b"POST / HTTP/1.1\r\nx-request-id: r7\r\ncontent-length: 2\r\n\r\n{]"
    answer = served(lua, tmp_path, request).stdout
    assert answer.startswith(b"HTTP/1.1 400 ")
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (problem["code"], problem["request_id"]) == ("bad_json", "r7")


def test_what_a_function_starts_gets_at_no_request_or_response(lua, tmp_path):
    (tmp_path / "handler.lua").write_text(
        'return function() io.write("noise\\n") os.execute("cat; echo more noise") return "clean" end'
    )
    done = served(lua, tmp_path, b"GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n" * 2)
    assert json.loads((tmp_path / "answer").read_text())["mode"] == "handler"
    assert done.stdout.count(b"HTTP/1.1 200") == done.stdout.count(b"\r\n\r\nclean") == 2
    assert b"noise" not in done.stdout
    assert done.stderr.count(b"more noise") == 2
