"""Which engines have containers whose root is an image."""

from pathlib import Path

import pytest

from martlet.drivers.driver import State
from martlet.drivers.engines import choose
from martlet.runtimes import Catalogue
from martlet.settings import SystemSettings

CATALOGUE = Catalogue.load()


def test_all_of_them_are_tried_for_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    settings = SystemSettings(base_image="debian", function_storage_path=tmp_path)

    found = choose(settings, tmp_path, CATALOGUE)

    assert found.engine is None
    assert [(each.state, each.remedy.split(",")[0]) for each in found.guarantees] == [
        (State.MISSING, "install crun"),
        (State.MISSING, "install runc"),
        (State.MISSING, "start Docker Engine (Debian: the package docker.io; systemctl start docker)"),
        (State.MISSING, "install podman (Debian: the package podman)"),
    ]
