"""Functions whose packages come from registries on loopback, by each language's own package manager and lock file.

Functions have no network here, so that what they need must have come with the build.
"""

from typing import Any

import httpx2
import pytest

from tests.conftest import require
from tests.runtimes.conftest import BUILD_SECONDS, MAVEN, archive
from tests.runtimes.ecosystems import Ecosystem, Java
from tests.system.conftest import Platform

LOCKED, NEWER, CORRUPT = "1.0.0", "1.1.0", "1.2.0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
]  # the first build of Go compiles its standard library


class Functions:
    """Functions that use the package of an ecosystem."""

    def __init__(self, platform: Platform, ecosystem: Ecosystem, runtime: str) -> None:
        self.client = platform.client
        self.ecosystem = ecosystem
        self.runtime = runtime

    def deploy(self, name: str, version: str) -> httpx2.Response:
        """Deploys a function that is locked to a version of the package."""
        config = {"runtime": self.runtime, "network": "none", **self.ecosystem.config(version)}
        known = self.client.get(f"/functions/{name}").status_code == 200
        return self.client.request(
            "PUT" if known else "POST",
            f"/functions/{name}" if known else "/functions",
            data={"name": name, "config": httpx2.Response(200, json=config).text},
            files={"archive": ("code.tar.gz", archive(self.ecosystem.function(version)))},
            timeout=BUILD_SECONDS,
        )

    def answer(self, name: str) -> str:
        """Returns what a function answers."""
        return self.client.get(f"/invoke/{name}").text.strip('"')


@pytest.fixture(scope="module", params=["go", "rust", "java", "kotlin", "ruby", "php"])
def functions(
    request: pytest.FixtureRequest,
    platform: Platform,
    ecosystems: dict[str, Ecosystem],
    runtimes: dict[str, dict[str, Any]],
) -> Functions:
    """A registry with a good version, a newer one, and one that is not what was published."""
    found = next((each for each in runtimes.values() if each["name"].startswith(request.param)), None)
    require(found is not None and found["runs"] and found["builds"], f"what builds {request.param}")
    ecosystem = ecosystems[request.param]
    if isinstance(ecosystem, Java):
        require(MAVEN.is_dir(), "the plugins of Maven, by scripts/maven")
    ecosystem.publish(LOCKED, NEWER, CORRUPT)
    ecosystem.corrupt(CORRUPT)
    assert found is not None
    return Functions(platform, ecosystem, found["name"])


def test_a_function_has_the_version_that_is_locked_and_the_same_is_not_installed_again(
    functions: Functions,
) -> None:
    name = f"greets-in-{functions.ecosystem.runtime}"
    answer = functions.deploy(name, LOCKED)
    assert answer.status_code == 201, answer.text
    assert functions.answer(name) == LOCKED

    asked = len(functions.ecosystem.site.asked)
    assert functions.deploy(f"{name}-again", LOCKED).status_code == 201
    assert functions.answer(f"{name}-again") == LOCKED
    assert functions.ecosystem.site.asked[asked:] == [], "what was built before is built again"


def test_a_newer_version_is_taken_where_the_lock_names_it(functions: Functions) -> None:
    if functions.ecosystem.runtime == "kotlin":
        pytest.skip("by Maven, as in Java, and its compiler takes long")
    name = f"greets-in-{functions.ecosystem.runtime}"
    assert functions.deploy(name, NEWER).is_success
    assert functions.answer(name) == NEWER


def test_a_package_that_is_not_what_was_published_is_refused_and_changes_nothing(
    functions: Functions,
) -> None:
    name = f"greets-in-{functions.ecosystem.runtime}"
    before = functions.answer(name)
    assert before in (LOCKED, NEWER)
    refused = functions.deploy(name, CORRUPT)
    assert refused.status_code == 422, refused.text
    assert functions.ecosystem.refusal in "\n".join(refused.json()["log"])
    assert functions.answer(name) == before
