"""``martlet`` run in this process, against a fake platform."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_platform import FakePlatform

from martlet.cli import main


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Martlet = Callable[..., Result]


@pytest.fixture
def martlet(capsys: pytest.CaptureFixture[str]) -> Martlet:
    """Runs ``martlet`` with these words and returns what it did."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlatform]:
    """A fake platform that the commands find in their environment."""
    with FakePlatform() as fake:
        monkeypatch.setenv("MARTLET_URL", fake.url)
        monkeypatch.setenv("MARTLET_KEY", "the-key")
        yield fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a function called ``greeter``."""
    path = tmp_path / "greeter"
    path.mkdir()
    (path / "handler.py").write_text("def handle(request):\n    return 'hello'\n")
    return path
