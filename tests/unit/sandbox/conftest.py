import os

import pytest

from tests.conftest import require


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    """Tests marked ``root`` run as root only."""
    if request.node.get_closest_marker("root"):
        require(os.geteuid() == 0, "root")
