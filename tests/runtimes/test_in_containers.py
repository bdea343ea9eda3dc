"""The runtime contract in containers: all of it, for the languages that most functions are written in."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.runtimes.conftest import COMPILED, Function, contract_functions
from tests.runtimes.test_runtime_contract import *  # noqa: F403  (these are the tests)
from tests.system.conftest import Platform

LANGUAGES = ("python", "node", "go", "ruby", "php", "java", "http", "lambda")
FUNCTIONS = [each for each in contract_functions() if each.values[0][0].name in LANGUAGES]

pytestmark = [
    COMPILED,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.parametrize("function", FUNCTIONS, indirect=True, scope="module"),
]


@pytest.fixture(scope="module")
def function(
    request: pytest.FixtureRequest, platform: Platform, runtimes: dict[str, dict[str, Any]]
) -> Iterator[Function]:
    """A contract function in a container, deployed once for all tests of the module."""
    folder, name = request.param
    runtime = runtimes[name]
    require(runtime["runs"] and runtime["builds"], f"{runtime['title']}: {runtime['missing']}")
    require(shutil.which("crun") or shutil.which("runc"), "crun or runc")
    environment = {"GREETING": "good day ☀"}
    function = Function(platform, folder, name, environment=environment, execution_mode="container")
    yield function
    platform.client.delete(f"/functions/{function.name}")


def test_it_is_served_by_a_container(function):
    assert function.get("/text").content == "text ✓".encode()
    assert {instance["driver"] for instance in function.instances()} == {"container"}
