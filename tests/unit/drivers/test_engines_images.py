"""Which engines have containers whose root is an image."""

from pathlib import Path

import pytest

from martlet.config import SystemSettings
from martlet.drivers.driver import State
from martlet.drivers.engines import choose
from martlet.errors import Invalid
from martlet.runtimes import Catalogue

CATALOGUE = Catalogue.load()


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_an_engine_with_images_of_its_own_takes_the_machines_folders_only(tmp_path: Path, engine: str):
    settings = SystemSettings(base_image="debian", container_runtime=engine, function_storage_path=tmp_path)

    with pytest.raises(Invalid, match=f"{engine} takes host, not debian") as caught:
        choose(settings, tmp_path, CATALOGUE)

    assert caught.value.field == "system.base_image"


def test_none_of_them_is_tried_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    settings = SystemSettings(base_image="debian", function_storage_path=tmp_path)

    found = choose(settings, tmp_path, CATALOGUE)

    assert found.engine is None
    assert [(each.state, each.remedy.split(",")[0]) for each in found.guarantees] == [
        (State.MISSING, "install crun"),
        (State.MISSING, "install runc"),
    ]
