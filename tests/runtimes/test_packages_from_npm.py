"""Functions in JavaScript and TypeScript whose packages come from a registry that the machine's settings reach.

The registry's authority is known from variables of the platform alone, as companies set them for their proxies;
functions have no network, so that what they need must have come with the build.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.runtimes.conftest import Function
from tests.runtimes.registry import Registry
from tests.system.conftest import Platform

GREETING = "module.exports = (name) => `VERSION: hello, ${name}`;\n"
STAMP = """#!/usr/bin/env node
require('fs').writeFileSync('built.js', 'module.exports = () => "built with stamp"');
"""
HANDLER = "const greet = require('greeting');\nmodule.exports = () => greet('you');\n"
MODULE = "import greet from 'greeting';\nexport default () => greet('you');\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with two versions of one package, and a program that builds."""
    require(shutil.which("openssl"), "openssl, to make certificates")
    with Registry(tmp_path_factory.mktemp("registry")) as registry:
        for version in ("1.0.0", "1.1.0"):
            registry.publish("greeting", version, {"index.js": GREETING.replace("VERSION", version)})
        registry.publish("stamp", "1.0.0", {"package.json": '{"bin": "stamp.js"}', "stamp.js": STAMP})
        yield registry


@pytest.fixture(scope="module")
def connected(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that trusts the registry, whose builds are told of it."""
    require(os.geteuid() == 0, "the process rung needs root for its namespaces and cgroups")
    platform = Platform(
        tmp_path_factory.mktemp("platform") / "data",
        lanes=1,
        build_environment={"NPM_CONFIG_REGISTRY": f"{registry.url}/", "NO_PROXY": "localhost"},
    )
    named = {name: str(registry.authority) for name in ("NODE_EXTRA_CA_CERTS", "DENO_CERT")}
    platform.environment = {**os.environ, **named}
    platform.start()
    yield platform
    platform.close()


def deploy(platform: Platform, folder: Path, runtime: str, files: dict[str, str], **config: object) -> str:
    """Deploys a function of these files and returns what it answers."""
    said = next(r for r in platform.client.get("/runtimes").json() if r["name"].startswith(runtime))
    require(said["runs"] and said["builds"], f"{said['title']}: {said['missing']}")
    source = folder / folder.name.replace("_", "-")  # as functions are named
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text)
    return Function(platform, source, said["name"], **config).get("/").text


def test_packages_are_those_of_the_configuration(connected: Platform, tmp_path: Path) -> None:
    files = {"handler.js": HANDLER}
    assert deploy(connected, tmp_path, "node", files, dependencies=["greeting@1.0.0"]) == "1.0.0: hello, you"


def test_without_a_lock_the_newest_that_fits_is_installed(connected: Platform, tmp_path: Path) -> None:
    manifest = {"dependencies": {"greeting": "^1.0.0"}}
    files = {"handler.js": HANDLER, "package.json": json.dumps(manifest)}
    assert deploy(connected, tmp_path, "node", files) == "1.1.0: hello, you"


def test_a_lock_decides(connected: Platform, registry: Registry, tmp_path: Path) -> None:
    manifest = {"name": "locked", "version": "1.0.0", "dependencies": {"greeting": "^1.0.0"}}
    packages = {"": manifest, "node_modules/greeting": registry.lock("greeting", "1.0.0")}
    lock = {"name": "locked", "version": "1.0.0", "lockfileVersion": 3, "packages": packages}
    files = {
        "handler.js": HANDLER,
        "package.json": json.dumps(manifest),
        "package-lock.json": json.dumps(lock),
    }
    assert deploy(connected, tmp_path, "node", files) == "1.0.0: hello, you"


def test_a_build_has_its_tools_and_the_function_does_not(connected: Platform, tmp_path: Path) -> None:
    manifest = {"main": "src.js", "scripts": {"build": "stamp"}, "devDependencies": {"stamp": "1.0.0"}}
    handler = (
        "const { existsSync } = require('fs');\n"
        "module.exports = () => [require('./built.js')(), existsSync('node_modules/stamp')];\n"
    )
    files = {"src.js": handler, "package.json": json.dumps(manifest)}
    assert json.loads(deploy(connected, tmp_path, "node", files)) == ["built with stamp", False]


def test_typescript_imports_packages_and_modules_of_its_own(connected: Platform, tmp_path: Path) -> None:
    files = {
        "handler.ts": "import greet from 'greeting';\nimport { whom } from './whom';\n"
        "export default (): string => greet(whom);\n",
        "whom.ts": "export const whom: string = 'types';\n",
        "package.json": json.dumps({"dependencies": {"greeting": "1.0.0"}}),
    }
    assert deploy(connected, tmp_path, "typescript", files) == "1.0.0: hello, types"


def test_bun_installs(connected: Platform, tmp_path: Path) -> None:
    manifest = {"dependencies": {"greeting": "^1.0.0"}}
    files = {"handler.ts": MODULE, "package.json": json.dumps(manifest)}
    assert deploy(connected, tmp_path, "bun", files) == "1.1.0: hello, you"


@pytest.mark.parametrize(
    ("name", "manifest"),
    [
        ("deno.json", {"imports": {"greeting": "npm:greeting@^1.0.0"}}),
        ("package.json", {"dependencies": {"greeting": "^1.0.0"}}),
    ],
)
def test_deno_needs_no_network_when_it_runs(
    connected: Platform, tmp_path: Path, name: str, manifest: dict[str, object]
) -> None:
    files = {"handler.ts": f"import 'npm:greeting@1';\n{MODULE}", name: json.dumps(manifest)}
    assert deploy(connected, tmp_path, "deno", files) == "1.1.0: hello, you"
