"""What decides a build besides what was sent."""

from pathlib import Path

import pytest

from martlet.builder import identity
from martlet.runtimes import Catalogue

DESCRIPTION = """name = "parrot"
title = "Parrot"
[build]
command = ["sh", "{runtimes}/macaw/build"]
[start]
command = ["sh"]
"""


def test_files_of_a_runtime_decide_and_those_of_another_whose_commands_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("parrot", "macaw", "heron"):
        (tmp_path / name).mkdir()
    (tmp_path / "parrot/runtime.toml").write_text(DESCRIPTION)
    monkeypatch.setattr(identity, "SHIPPED", tmp_path)
    runtime = Catalogue.load(tmp_path).resolve("parrot")
    seen = [identity.identity_of(runtime)]
    for name in ("parrot", "macaw", "heron"):
        (tmp_path / name / "build").write_text("echo built")
        seen.append(identity.identity_of(runtime))
    before, own, others, same = seen
    assert len({before, own, others}) == 3
    assert same == others
