"""Which engine starts containers, where none does."""

from pathlib import Path

import pytest

from martlet.drivers.driver import State
from martlet.drivers.engines import choose
from martlet.errors import Invalid
from martlet.runtimes import Catalogue
from martlet.settings import SystemSettings


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine serves who is not root, which each of them asks for."""
    monkeypatch.setattr("os.geteuid", lambda: 65534)


@pytest.mark.usefixtures("nobody")
def test_without_root_no_engine_is_chosen_and_each_says_why(tmp_path: Path):
    choice = choose(SystemSettings(function_storage_path=tmp_path), tmp_path, Catalogue([]))
    assert choice.engine is None
    assert {each.state for each in choice.guarantees} == {State.MISSING}
    assert len(choice.guarantees) == 4
    assert all("root" in each.why for each in choice.guarantees)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("engine", ["crun", "docker", "podman"])
def test_an_engine_that_is_named_and_starts_nothing_is_refused(tmp_path: Path, engine: str):
    settings = SystemSettings(function_storage_path=tmp_path, container_runtime=engine)
    with pytest.raises(Invalid, match="root") as refused:
        choose(settings, tmp_path, Catalogue([]))
    assert refused.value.field == "system.container_runtime"
