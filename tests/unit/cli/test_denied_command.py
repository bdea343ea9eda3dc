"""``martlet denied``."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

SOURCE = """
import socket

def attempt(*arguments):
    try:
        socket.socket(*arguments)
    except PermissionError:
        pass

attempt(socket.AF_PACKET)

def handle(request):
    for _ in range(request.get_json()["times"]):
        attempt(socket.AF_INET, socket.SOCK_RAW)
    return "done"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "faas.yaml"
    file.write_text(f"system:\n  function_storage_path: {tmp_path / 'data'}\n")
    return file


def written(folder: Path, source: str) -> Path:
    (folder / "handler.py").write_text(source)
    return folder


def test_what_a_function_was_denied_is_shown_with_the_reason(martlet, folder, config):
    result = martlet("denied", written(folder, SOURCE), '{"times": 3}', "-c", config)

    assert result.code == 0
    heading, *rows = result.out.splitlines()
    assert heading.split() == ["CALL", "ARGUMENTS", "ANSWER", "TIMES", "WHY"]
    assert [row.split()[:6] for row in rows[:2]] == [
        ["socket", "AF_INET,", "SOCK_RAW,", "0", "EPERM", "3"],
        ["socket", "AF_PACKET,", "SOCK_STREAM,", "0", "EPERM", "1"],
    ]
    assert "raw ones forge traffic" in rows[0]
    assert "answered with status 200" in result.err


def test_programs_get_it_as_json(martlet, folder, config):
    result = martlet("denied", written(folder, SOURCE), '{"times": 2}', "-c", config, "--json")

    calls = [(denial["call"], denial["arguments"], denial["times"]) for denial in result.json]
    assert ("socket", "AF_INET, SOCK_RAW, 0", 2) in calls


def test_a_harmless_function_is_denied_nothing(martlet, folder, config):
    result = martlet("denied", folder, "-c", config)

    assert (result.code, result.out) == (0, "")
    assert "Nothing was denied." in result.err


def test_code_that_does_not_load_is_shown_with_what_it_was_denied(martlet, folder, config):
    source = "import socket\nsocket.socket(socket.AF_PACKET)\ndef handle(request): return 1"

    result = martlet("denied", written(folder, source), "-c", config)

    assert result.code == 5
    assert "AF_PACKET" in result.out
    assert "PermissionError" in result.err


def test_packages_are_given_as_a_folder(martlet, folder, config, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "greeting.py").write_text("WORDS = 'hello'")
    source = "import greeting\ndef handle(request): return greeting.WORDS"

    result = martlet("denied", written(folder, source), "-c", config, "--dependencies", tmp_path / "packages")

    assert result.code == 0
    assert martlet("denied", folder, "-c", config, "--dependencies", tmp_path / "no").code == 2


def test_a_function_that_prints_much_is_not_held_up(martlet, folder, config):
    source = "def handle(request):\n    print('x' * 1_000_000)\n    return 1"

    assert martlet("denied", written(folder, source), "-c", config).code == 0


def test_a_function_that_ends_is_said_to(martlet, folder, config):
    source = "import os\ndef handle(request): os._exit(1)"

    result = martlet("denied", written(folder, source), "-c", config)

    assert result.code == 5
    assert "closed before the answer" in result.err


def test_a_function_that_reaches_other_machines_reaches_none_here(martlet, folder, config):
    (folder / "martlet.yaml").write_text("network: egress\negress_to: [203.0.113.0/24]\n")
    source = "import socket\ndef handle(request): return str([name for _, name in socket.if_nameindex()])"

    assert martlet("denied", written(folder, source), "-c", config).code == 0


def test_a_body_that_is_not_json_is_refused(martlet, folder, config):
    result = martlet("denied", folder, "{", "-c", config)

    assert result.code == 2
    assert "it is not JSON" in result.err


@pytest.fixture
def short_folder():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the path of a socket has at most 107 bytes
        yield folder


def test_nothing_is_left_of_it(martlet, folder, config, monkeypatch, short_folder):
    monkeypatch.setenv("TMPDIR", short_folder)
    monkeypatch.setattr("tempfile.tempdir", None)
    gc.collect()  # what other tests have left open
    before = len(os.listdir("/proc/self/fd"))

    assert martlet("denied", folder, "-c", config).code == 0

    assert os.listdir(short_folder) == []
    assert len(os.listdir("/proc/self/fd")) == before
