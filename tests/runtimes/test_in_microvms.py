"""The runtime contract in microVMs, for several languages: with ``--every-rung``."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.driver_rigs import saved_machine
from tests.runtimes.conftest import Function, contract_functions, installed
from tests.runtimes.test_runtime_contract import *  # noqa: F403  (these are the tests)
from tests.system.conftest import Platform

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900)]

LANGUAGES = ("python", "node", "go", "http", "lambda")
USUAL = ()
"""Of these tests none, without being asked for: each language has a machine made first."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs each test with the contract function of each language."""
    found = {param.values[0][0].name: param for param in contract_functions()}
    chosen = [found[language] for language in LANGUAGES if language in found]
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
    yield function
    platform.client.delete(f"/functions/{function.name}")


def test_it_is_served_by_a_microvm(function):
    assert function.get("/text").content == "text ✓".encode()
    assert {instance["driver"] for instance in function.instances()} == {"microvm"}
