"""``martlet`` as a person runs it, against a platform."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from martlet.cli import main
from tests.system.conftest import until

pytestmark = pytest.mark.slow

MARTLET = [sys.executable, "-m", "martlet.cli"]
PATIENCE = 60.0


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Martlet = Callable[..., Result]


@pytest.fixture
def environment(platform: Any) -> dict[str, str]:
    return {"MARTLET_URL": platform.url, "MARTLET_KEY": platform.admin_key}


@pytest.fixture
def martlet(
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Martlet:
    """Runs ``martlet`` in this process: an interpreter for each command takes longer than all that it does."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, stdin: str = "", **variables: str) -> Result:
        with pytest.MonkeyPatch.context() as given:
            for name, value in (environment | variables).items():
                given.setenv(name, value)
            given.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            capsys.readouterr()
            code = main([str(word) for word in words])
            captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def program(environment: dict[str, str], tmp_path: Path) -> Martlet:
    """Runs ``martlet`` in a process of its own."""

    def run(*words: object, stdin: str = "") -> Result:
        done = subprocess.run(
            [*MARTLET, *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            env=os.environ | environment,
            cwd=tmp_path,
            timeout=PATIENCE,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def name(request: pytest.FixtureRequest, martlet: Martlet) -> Iterator[str]:
    """A name for a function that nobody else uses; what is deployed under it is deleted."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-")
    yield name
    martlet("delete", name, "--yes")


@pytest.fixture
def greeter(martlet: Martlet, tmp_path: Path, name: str) -> str:
    """A function that greets, deployed from the template."""
    assert martlet("init", tmp_path / "code", "--name", name).code == 0
    deployed = martlet("deploy", tmp_path / "code")
    assert deployed.code == 0, deployed.err
    assert deployed.out.endswith(f"/invoke/{name}\n")
    return name


def test_the_program_deploys_and_invokes_and_fails_by_its_exit_code(program, name):
    assert program("init", "code", "--name", name).code == 0
    deployed = program("deploy", "code")
    assert (deployed.code, deployed.out.endswith(f"/invoke/{name}\n")) == (0, True), deployed.err
    assert program("invoke", name, "-", stdin='{"name": "Bob"}').json == {"message": "Hello, Bob!"}
    assert program("invoke", "no-such-function", "{}").code == 3


def test_from_a_template_to_an_answer(martlet, greeter):
    answer = martlet("invoke", greeter, '{"name": "Ada"}')
    assert (answer.code, answer.json) == (0, {"message": "Hello, Ada!"})
    assert martlet("invoke", greeter, "-", stdin='{"name": "Bob"}').json == {"message": "Hello, Bob!"}
    assert greeter in [function["name"] for function in martlet("list", "--json").json]
    assert greeter in martlet("list").out
    described = martlet("describe", greeter, "--json").json
    assert described["config"]["memory"] == "128Mi"
    assert greeter in martlet("describe", greeter).out


@pytest.mark.parametrize("template", ["streaming", "asgi", "webhook"])
def test_every_template_runs(martlet, tmp_path, name, template):
    assert martlet("init", tmp_path / "code", "--name", name, "--template", template).code == 0
    deployed = martlet("deploy", tmp_path / "code")
    assert deployed.code == 0, deployed.err
    answer = martlet("invoke", name)
    expected = {
        "streaming": (0, "1\n2\n3\n4\n5\n"),
        "asgi": (0, "Hello from ASGI!\n"),
        "webhook": (8, '{"error":"the signature is wrong"}'),
    }[template]
    assert (answer.code, answer.out.replace(": ", ":")) == (expected[0], expected[1].replace(": ", ":"))


def test_revisions_rollback_and_aliases(martlet, tmp_path, greeter):
    handler = tmp_path / "code" / "handler.py"
    handler.write_text(handler.read_text().replace("Hello", "Salve"))
    assert martlet("deploy", tmp_path / "code").code == 0
    assert martlet("invoke", greeter, "{}").json == {"message": "Salve, World!"}
    assert [revision["number"] for revision in martlet("revisions", greeter, "--json").json] == [2, 1]
    assert martlet("alias", "set", greeter, "old", "1").code == 0
    assert martlet("invoke", f"{greeter}@old", "{}").json == {"message": "Hello, World!"}
    assert [alias["name"] for alias in martlet("alias", "list", greeter, "--json").json] == ["old"]
    assert martlet("alias", "delete", greeter, "old").code == 0
    assert martlet("rollback", greeter).code == 0
    assert martlet("invoke", greeter, "{}").json == {"message": "Hello, World!"}
    assert "1*" in martlet("revisions", greeter).out


def test_one_file_with_options(martlet, tmp_path, name):
    (tmp_path / "env.py").write_text("import os\ndef handle(request):\n    return os.environ['COLOR']\n")
    words = ["--name", name, "--env", "COLOR=blue", "--memory", "64Mi", "--timeout", "5"]
    assert martlet("deploy", tmp_path / "env.py", *words).code == 0
    assert martlet("invoke", name).out == "blue"
    config = martlet("describe", name, "--json").json["config"]
    assert (config["memory"], config["timeout"]) == ("64Mi", 5)


def test_code_that_does_not_load_keeps_what_served(martlet, tmp_path, greeter):
    (tmp_path / "code" / "handler.py").write_text("import nothing_of_that_name\n")
    failed = martlet("deploy", tmp_path / "code")
    assert failed.code == 5
    assert "nothing_of_that_name" in failed.err
    assert "Traceback" not in failed.out
    assert martlet("invoke", greeter, "{}").json == {"message": "Hello, World!"}
    builds = martlet("builds", "--function", greeter, "--json").json
    assert [build["state"] for build in builds] == ["failed", "ready"]
    assert "nothing_of_that_name" in martlet("builds", "log", builds[0]["id"]).out


def test_logs_invocations_stats_and_instances(martlet, greeter):
    assert martlet("invoke", greeter, '{"name": "Ada"}').code == 0
    until(lambda: "greeting Ada" in martlet("logs", greeter).out)
    lines = [json.loads(line) for line in martlet("logs", greeter, "--json").out.splitlines()]
    assert "greeting Ada" in [line["message"] for line in lines]
    until(lambda: martlet("invocations", greeter, "--json").json)
    assert martlet("invocations", greeter, "--json").json[0]["status"] == 200
    assert martlet("invocations", greeter).code == 0
    assert martlet("stats").code == 0
    assert martlet("stats", greeter).code == 0
    mine = [each for each in martlet("instances", "--json").json if each["function"] == greeter]
    assert mine
    assert martlet("instances").code == 0
    assert martlet("instances", "stop", mine[0]["id"]).code == 0
    until(lambda: mine[0]["id"] not in martlet("instances").out)


def test_keys_are_made_limited_rotated_and_revoked(martlet, greeter):
    made = martlet(
        "keys", "create", "for the test", "--scope", "invoke", "--function", greeter, "--json"
    ).json
    key, secret = made["id"], made["secret"]
    assert martlet("invoke", greeter, "{}", MARTLET_KEY=secret).code == 0
    assert martlet("list", MARTLET_KEY=secret).code == 4
    rotated = martlet("keys", "rotate", key)
    assert rotated.code == 0, rotated.err
    assert martlet("invoke", greeter, "{}", MARTLET_KEY=secret).code == 4
    assert martlet("invoke", greeter, "{}", MARTLET_KEY=rotated.out.strip()).code == 0
    assert key in martlet("keys", "list").out
    assert martlet("keys", "revoke", key).code == 0
    assert martlet("invoke", greeter, "{}", MARTLET_KEY=rotated.out.strip()).code == 4


def test_what_goes_wrong_is_told_by_the_exit_code(martlet, tmp_path, name):
    assert martlet("invoke", "no-such-function", "{}").code == 3
    assert martlet("describe", "no-such-function").code == 3
    assert martlet("list", MARTLET_KEY="wrong").code == 4
    assert martlet("list", MARTLET_URL="http://127.0.0.1:9").code == 6
    (tmp_path / "fails.py").write_text("def handle(request):\n    raise ValueError('no')\n")
    assert martlet("deploy", tmp_path / "fails.py", "--name", name).code == 0
    failed = martlet("invoke", name, "{}")
    assert failed.code == 5
    assert "ValueError: no" in failed.err


def test_the_platform_tells_its_runtimes_and_nodes(martlet):
    assert any(each["name"].startswith("python") for each in martlet("runtimes", "--json").json)
    assert martlet("runtimes").out
    assert martlet("nodes", "--json").json
    assert martlet("nodes").out


def test_doctor_finds_that_functions_can_run(martlet):
    assert martlet("doctor").code == 0


def test_dev_deploys_again_on_change_and_leaves_nothing_behind(martlet, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    assert martlet("init", tmp_path / "code", "--name", "mine").code == 0
    handler = tmp_path / "code" / "handler.py"
    with Dev(tmp_path / "code", temporary) as dev:
        dev.wait_for("mine@1 serves at")
        where = dev.wait_for("/invoke/mine").strip().removesuffix("/invoke/mine")
        own = {"MARTLET_URL": where, "MARTLET_KEY": "admin-key"}
        assert martlet("invoke", "mine", "{}", **own).json == {"message": "Hello, World!"}
        dev.wait_for("greeting World")
        handler.write_text("def handle(request):\n    return nonsense(\n")
        dev.wait_for("it is deployed again when a file changes")
        assert martlet("invoke", "mine", "{}", **own).json == {"message": "Hello, World!"}
        handler.write_text("def handle(request):\n    return {'message': 'changed'}\n")
        dev.wait_for("changed: handler.py")
        dev.wait_for("serves at")
        assert martlet("invoke", "mine", "{}", **own).json == {"message": "changed"}
        assert dev.stop() == 0
    assert martlet("invoke", "mine", "{}", **own).code == 6
    assert list(temporary.iterdir()) == []


class Dev:
    """``martlet dev`` in a process group of its own, and what it prints."""

    def __init__(self, source: Path, temporary: Path) -> None:
        self._process = subprocess.Popen(
            [*MARTLET, "dev", str(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
            process_group=0,
        )
        self._lines: list[str] = []
        self._seen = 0
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> "Dev":
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.stop()
        self._reader.join()
        self._process.stdout.close()

    def wait_for(self, text: str) -> str:
        """The next line, of those not waited for yet, that has the text in it."""

        def found() -> str | None:
            for number in range(self._seen, len(self._lines)):
                if text in self._lines[number]:
                    self._seen = number + 1
                    return self._lines[number]
            assert self._process.poll() is None, "".join(self._lines)
            return None

        return until(found, within=PATIENCE, why=f"dev printed no {text!r}")

    def stop(self) -> int:
        """Presses Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(PATIENCE)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.append(line)
