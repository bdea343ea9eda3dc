"""What every test may use."""

import os

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as Martlet does."""
    return "asyncio"


def require(condition: object, reason: str) -> None:
    """Skips the test where a component is missing, and fails it instead when CI=true."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def _root(request: pytest.FixtureRequest) -> None:
    """Tests marked ``root`` need it."""
    if request.node.get_closest_marker("root"):
        require(os.geteuid() == 0, "root, to make namespaces and cgroups")
