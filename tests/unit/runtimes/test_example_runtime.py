"""The runtime that docs/runtimes.md shows speaks the protocol that the page describes."""

from pathlib import Path

import httpx2
import pytest

from martlet.runtimes import Catalogue
from tests.example_runtime import write_runtime
from tests.runtimes.shim import running


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    write_runtime(tmp_path / "runtimes/template")
    runtime = Catalogue.load(tmp_path / "runtimes").resolve("template")
    assert runtime.description.start.command is not None
    return runtime.command(runtime.description.start.command, confined=False)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


def test_it_answers_with_the_function_and_its_health_without(command: list[str], code: Path) -> None:
    (code / "page.template").write_text("Dear $name, welcome.\n")
    with running(command, code) as shim:
        assert shim.answer["mode"] == "handler"
        client = httpx2.Client(transport=httpx2.HTTPTransport(uds=shim.socket), base_url="http://shim")
        with client:
            assert client.get("/?name=Ada").text == "Dear Ada, welcome.\n"
            assert client.get("/_martlet/health").json() == {"status": "ok"}
            refused = client.get("/")
            assert (refused.status_code, refused.headers["x-martlet-error"]) == (500, "KeyError")
    assert shim.process.returncode == 0


def test_code_that_does_not_load_is_told(command: list[str], code: Path) -> None:
    with running(command, code) as shim:
        assert shim.answer["error"]["type"] == "ValueError"
