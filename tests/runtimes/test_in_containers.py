"""What of the runtime contract could differ in a container: how code, environment, logs and ends get in and out."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import require
from tests.runtimes.conftest import Function, contract_functions
from tests.system.conftest import Platform

LANGUAGES = ("python", "node", "go", "ruby", "php", "java", "http", "lambda")


def newest() -> list[Any]:
    """The contract function of each of these languages, with one version of its runtime."""
    found = {param.values[0][0].name: param for param in reversed(contract_functions(open_runtimes=False))}
    return [found[language] for language in LANGUAGES if language in found]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.parametrize("contained", newest(), indirect=True, scope="module"),
]


@pytest.fixture(scope="module")
def contained(
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


def test_it_is_served_by_a_container(contained):
    assert contained.get("/text").content == "text ✓".encode()
    assert {instance["driver"] for instance in contained.instances()} == {"container"}


def test_its_environment_is_the_functions(contained):
    assert contained.get("/environment").json() == {"GREETING": "good day ☀"}


def test_a_large_body_comes_and_goes(contained):
    assert contained.get("/large").content == b"x" * 5_000_000


def test_an_error_is_told(contained):
    contained.needs("errors")
    assert contained.get("/raise").status_code == 500


def test_what_ends_by_itself_is_replaced(contained):
    assert contained.get("/crash").status_code == 502
    assert contained.get("/count").json() == {"count": 1}


def test_it_starts_again_from_nothing(contained):
    contained.end_instances()
    assert contained.get("/count").json() == {"count": 1}
