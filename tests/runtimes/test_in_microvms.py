"""The runtime contract in microVMs: all of it for Python, and for several languages with ``--every-rung``."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.driver_rigs import saved_machine
from tests.runtimes.conftest import Function, contract_functions, installed
from tests.runtimes.test_runtime_contract import *  # noqa: F403  (these are the tests)
from tests.system.conftest import Platform

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

WHOLE, IN_PART, DEAR = ("python",), ("go", "http", "lambda"), ("node",)
"""Languages by what is asked of them without ``--every-rung``; to start Node takes an emulated processor seconds."""
PACE = 6
SMOKE = (
    "test_a_body_comes_back",
    "test_the_environment_is_the_functions",
    "test_what_is_logged_has_the_id_of_the_request",
    "test_it_is_served_by_a_microvm",
)
"""What those are asked for that are asked in part."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test with the contract function of Python, and some of them or all with those of others."""
    found = {param.values[0][0].name: param for param in contract_functions()}
    languages = WHOLE
    if metafunc.config.getoption("every_rung"):
        languages += IN_PART + DEAR
    elif metafunc.function.__name__ in SMOKE:
        languages += IN_PART
    chosen = [found[language] for language in languages if language in found]
    metafunc.parametrize("function", chosen, indirect=True, scope="module")


@pytest.fixture(scope="module")
def function(
    request: pytest.FixtureRequest, platform: Platform, runtimes: dict[str, dict[str, Any]]
) -> Iterator[Function]:
    """A contract function in a microVM, deployed once for all tests of the module."""
    folder, name = request.param
    runtime = runtimes[name]
    require(runtime["runs"] and runtime["builds"], f"{runtime['title']}: {runtime['missing']}")
    saved_machine(installed().resolve(name))
    environment = {"GREETING": "good day ☀"}
    function = Function(platform, folder, name, environment=environment, execution_mode="microvm")
    function.pace = PACE
    yield function
    platform.client.delete(f"/functions/{function.name}")


def test_it_is_served_by_a_microvm(function):
    assert function.get("/text").content == "text ✓".encode()
    assert {instance["driver"] for instance in function.instances()} == {"microvm"}
