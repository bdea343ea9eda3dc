"""Which engines have containers whose root is an image."""

from pathlib import Path

import pytest

from martlet.config import SystemSettings
from martlet.drivers.driver import CellSpec, LoadFailed, State
from martlet.drivers.engines import choose, make
from martlet.errors import Invalid
from martlet.model import Network
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


@pytest.mark.anyio
@pytest.mark.parametrize("engine", ["docker", "podman"])
async def test_an_engine_with_images_of_its_own_refuses_functions_that_are_one(tmp_path: Path, engine: str):
    settings = SystemSettings(container_runtime=engine, function_storage_path=tmp_path)
    driver = make(engine, settings, 0, tmp_path, CATALOGUE)
    cell = CellSpec("cell", "http", Network.NONE, tmp_path / "cell", "shop@" + "a" * 64)

    with pytest.raises(LoadFailed, match=f"{engine} runs no functions that are an image") as caught:
        await driver.start(cell)

    assert "set system.container_runtime to crun, runc or runsc" in str(caught.value)
