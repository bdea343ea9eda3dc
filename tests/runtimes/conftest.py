"""One real platform for the contract functions of every runtime, and clients for them.

``functions/<runtime>/`` is the contract function of a runtime, and ``functions/<runtime>-open-runtimes/`` the one for
Open Runtimes. Each is deployed once for every version of the runtime that is found. What a language cannot do is said
in a ``cannot.toml`` beside its function: the feature, and the reason as the guides have it.
"""

import io
import json
import os
import tarfile
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest

from martlet.runtimes import Catalogue, Runtime
from martlet.settings import SystemSettings
from tests.conftest import MICROVMS, TOOLCHAINS, require
from tests.runtimes.ecosystems import Ecosystem, Go, Java, Kotlin, Php, Ruby, Rust
from tests.runtimes.site import Site
from tests.system.conftest import Platform, until

FUNCTIONS = Path(__file__).parent / "functions"
OPEN = "-open-runtimes"
MAVEN = TOOLCHAINS / "maven-repository"
"""Where `scripts/maven` puts the plugins that Maven takes."""
BUILD_SECONDS = 300
"""What a compiler may take on a machine that has much else to do."""
COMPILED = pytest.mark.timeout(BUILD_SECONDS + 120)
"""Of tests the first of which waits for a compiler."""


class Function:
    """A contract function that has been deployed.

    Attributes:
        name: of the function.
        folder: its source.
        cannot: why it lacks a feature, by feature.
        pace: by how much longer it may take than where its processor is not emulated.
    """

    pace = 1

    def __init__(self, platform: Platform, folder: Path, runtime: str, **config: Any) -> None:
        self.name = f"{folder.name}-{runtime}".replace(".", "-")
        self.folder = folder
        self.cannot = cannot(folder)
        self._platform = platform
        self._client = platform.client
        document = json.dumps({"runtime": runtime, "max_instances": 1, **config})
        answer = self._client.post(
            "/functions",
            data={"name": self.name, "config": document},
            files={"archive": ("code.tar.gz", archive(folder))},
            timeout=BUILD_SECONDS,
        )
        assert answer.status_code == 201, answer.text

    def ask(self, method: str, target: str, **request: Any) -> httpx2.Response:
        """Sends a request to the function."""
        return self._client.request(method, f"/invoke/{self.name}{target}", **request)

    def get(self, target: str, **request: Any) -> httpx2.Response:
        """Sends a GET to the function."""
        return self.ask("GET", target, **request)

    def stream(self, target: str) -> Any:
        """Returns a context with a response that is read as it comes."""
        return self._client.stream("GET", f"/invoke/{self.name}{target}")

    def configure(self, **config: Any) -> None:
        """Makes a revision with another configuration."""
        answer = self._client.put(f"/functions/{self.name}", json={"config": config})
        assert answer.status_code == 200, answer.text

    def end_instances(self) -> None:
        """Ends its instances, and waits until they are gone."""
        for instance in self.instances():
            self._client.delete(f"/instances/{instance['id']}")
        until(lambda: not self.instances(), why="an instance lives on")

    def instances(self) -> list[dict[str, Any]]:
        """Returns its living instances."""
        return self._platform.instances(self.name)

    def lines(self, response: httpx2.Response) -> dict[str, str]:
        """Returns what a request has logged so far: each message with its stream."""
        wanted = {"request_id": response.headers["x-request-id"]}
        lines = self._client.get(f"/functions/{self.name}/logs", params=wanted).json()
        return {line["message"].rstrip("\n"): line["stream"] for line in lines}

    def logged(self, response: httpx2.Response, *messages: str) -> dict[str, str]:
        """Waits until these messages, at least, were logged by a request; returns its `lines`."""
        until(lambda: self.lines(response).keys() >= set(messages), why=f"{messages} were not all logged")
        return self.lines(response)

    def until_logged(self, response: httpx2.Response, *phrases: str) -> None:
        """Waits until a request has logged lines that have these phrases, whatever else their formats put there."""

        def said() -> bool:
            text = "\n".join(self.lines(response))
            return all(phrase in text for phrase in phrases)

        until(said, why=f"{phrases} were not all logged")

    def needs(self, feature: str) -> None:
        """Ends the test where the function declares that its language lacks the feature."""
        if feature in self.cannot:
            pytest.skip(self.cannot[feature])


def cannot(folder: Path) -> dict[str, str]:
    """Returns why a contract function lacks a feature, by feature."""
    path = folder / "cannot.toml"
    return tomllib.loads(path.read_text()) if path.exists() else {}


def archive(source: Path | Mapping[str, str]) -> bytes:
    """Returns a folder, or text files by name, as a tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        if isinstance(source, Path):
            packed.add(source, arcname=".")
        else:
            for name, text in source.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                packed.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@cache
def installed() -> Catalogue:
    """Returns the runtimes that the platform of the tests has."""
    return Catalogue.of(SystemSettings(toolchains_path=(TOOLCHAINS,)))


def contract_functions(*, open_runtimes: bool = False, older: bool = False) -> list[Any]:
    """Returns each contract function with a runtime, as parameters.

    Args:
        open_runtimes: take the functions for Open Runtimes.
        older: not with the newest version that is found, but with the others, of runtimes whose builds have nothing in
            common that must be made first: for another Go all of its standard library would be compiled.
    """
    found: dict[str, list[Runtime]] = {}
    for runtime in installed().available():
        found.setdefault(runtime.description.name, []).append(runtime)
    parameters = []
    for folder in sorted(FUNCTIONS.iterdir()):
        if folder.name.endswith(OPEN) == open_runtimes:
            language = folder.name.removesuffix(OPEN)
            versions = found.get(language, [])
            names = [each.name for each in versions[1:] if not prepares(each)]
            if not older:
                names = [each.name for each in versions[:1]] or [language]
            parameters += [pytest.param((folder, name), id=name) for name in names]
    return parameters


def prepares(runtime: Runtime) -> bool:
    """Whether something is made before the first build with a runtime."""
    return runtime.description.build is not None and runtime.description.build.prepare is not None


@pytest.fixture(scope="package")
def ecosystems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ecosystem]]:
    """Registries on loopback, by the runtime whose packages they have."""
    with Site() as site:
        maven = [(site, name, MAVEN, tmp_path_factory.mktemp(name)) for name in ("java", "kotlin")]
        made = [Go(site, "go"), Rust(site, "rust"), Ruby(site, "ruby"), Php(site, "php")]
        yield {each.runtime: each for each in [*made, Java(*maven[0]), Kotlin(*maven[1])]}


@pytest.fixture(scope="package")
def platform(
    tmp_path_factory: pytest.TempPathFactory, ecosystems: dict[str, Ecosystem]
) -> Iterator[Platform]:
    """The platform that all contract functions run on, whose builds are told of the registries."""
    require(os.geteuid() == 0, "the process rung needs root for its namespaces and cgroups")
    operator = tmp_path_factory.mktemp("operator")
    operator.chmod(0o755)
    (operator / "settings.xml").write_text(ecosystems["java"].settings())
    (operator / "config.json").write_text('{"config": {"secure-http": false}}')
    platform = Platform(
        tmp_path_factory.mktemp("platform") / "data",
        lanes=1,
        min_cells=1,
        cold_start_timeout=180,  # an emulated processor loads slowly
        microvm_path=str(MICROVMS),
        build_network="host",
        build_environment={
            "GOPROXY": ecosystems["go"].url,
            "GONOSUMDB": "*",
            "BUNDLE_MIRROR__ALL": f"{ecosystems['ruby'].url}/",
            "COMPOSER_HOME": str(operator),
            "MAVEN_ARGS": f"--settings {operator}/settings.xml",
        },
        build_folders=[str(operator)],
    )
    platform.start()
    yield platform
    platform.close()


@pytest.fixture(scope="package")
def runtimes(platform: Platform) -> dict[str, dict[str, Any]]:
    """What the platform says of its runtimes, by name."""
    return {runtime["name"]: runtime for runtime in platform.client.get("/runtimes").json()}


@pytest.fixture(scope="module")
def function(
    request: pytest.FixtureRequest, platform: Platform, runtimes: dict[str, dict[str, Any]]
) -> Function:
    """A contract function, deployed once for all tests of a module."""
    folder, name = request.param
    runtime = runtimes[name]
    reason = f"{runtime['title']}: {runtime['missing']} ({runtime['remedy']})"
    require(runtime["runs"] and runtime["builds"], reason)
    return Function(platform, folder, name, environment={"GREETING": "good day ☀"})
