"""Every target of the fuzzer, for a second; `make fuzz` takes longer."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import require
from tests.fuzz.fuzzer import TARGETS, fuzz

SECONDS = 1
SEED = 1
"""So that a change is never blamed for what it has not done (`tests.conftest`)."""


@pytest.fixture
def atheris() -> None:
    require(find_spec("atheris"), "atheris (the extra fuzz)")


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_fuzzer_begins_with_holds(target: str) -> None:
    module = import_module(f"tests.fuzz.{target}")
    for seed in module.SEEDS:
        module.check(seed)


@pytest.mark.slow
@pytest.mark.usefixtures("atheris")
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    assert fuzz(target, SECONDS, tmp_path, SEED) is None


@pytest.mark.slow
@pytest.mark.usefixtures("atheris")
def test_a_fuzzer_would_find_a_fault_and_keep_the_input(tmp_path: Path) -> None:
    found = fuzz("planted", 60, tmp_path, SEED)
    assert found is not None
    assert "the planted fault" in found
    assert [path.read_bytes()[:3] for path in tmp_path.glob("planted-crash-*")] == [b"bad"]
