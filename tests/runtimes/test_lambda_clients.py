"""AWS's own runtime clients of other languages, unmodified, built as users of Lambda build them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import TOOLCHAINS, require
from tests.runtimes.conftest import Function

CLIENTS = Path(__file__).parent / "lambda_clients"
CACHES = TOOLCHAINS / "caches"
"""What is compiled stays for later runs; Go's standard library is that of all builds of `tests.runtimes.build`."""


class Client(NamedTuple):
    """How the client of a language gets into a package.

    Attributes:
        command: run in the folder with its source.
        variables: of the environment, beside the usual ones.
        program: what becomes the package's ``bootstrap``, below the source unless elsewhere; None: all is the package.
        kept: what the command makes in the folder and would find there again.
    """

    command: list[str]
    variables: dict[str, str]
    program: Path | None = None
    kept: str | None = None


BUILDS = {
    "go": Client(
        ["go", "build", "-trimpath", "-tags", "lambda.norpc", "-o", "bootstrap", "."],
        {"CGO_ENABLED": "0", "GOCACHE": str(CACHES / "go/build")},
        program=Path("bootstrap"),
    ),
    "rust": Client(
        ["cargo", "build", "--locked"],
        {
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "CARGO_PROFILE_DEV_CODEGEN_UNITS": "1",
            "CARGO_TARGET_DIR": str(CACHES / "lambda-rust"),
        },
        program=CACHES / "lambda-rust/debug/bootstrap",
    ),
    "node": Client(["npm", "install", "--no-package-lock"], {}, kept="node_modules"),
}
DEAR = {"node"}
"""What compiles for minutes, and is left out unless it is asked for: ``--every-client``."""
UNREACHABLE = (
    "dial tcp",
    "lookup ",
    "connection refused",
    "Could not resolve",
    "Couldn't connect",
    "Timeout was reached",
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # dozens of crates, on a machine that has much else to do
]


def pytest_generate_tests(metafunc):
    """Has each test ask every client."""
    wanted = set(BUILDS) - (set() if metafunc.config.getoption("every_client") else DEAR)
    metafunc.parametrize("function", sorted(wanted), indirect=True, scope="module")


@pytest.fixture(scope="module")
def function(request, platform, tmp_path_factory):
    """A function with the client of a language, deployed as a folder with its ``bootstrap``, or with all of it."""
    source = build(request.param, tmp_path_factory.mktemp("lambda") / request.param)
    program = BUILDS[request.param].program
    if program is None:
        return Function(platform, source, "lambda")
    package = tmp_path_factory.mktemp("lambda-package") / request.param  # which the function is called after
    package.mkdir()
    shutil.copy(source / program, package / "bootstrap")
    return Function(platform, package, "lambda")


def build(language: str, folder: Path) -> Path:
    """Builds a client in ``folder`` with its language's ordinary means; returns that."""
    client = BUILDS[language]
    shutil.copytree(CLIENTS / language, folder)
    kept = CACHES / f"lambda-{language}"
    if client.kept and kept.is_dir():
        shutil.copytree(kept, folder / client.kept, symlinks=True)
    path = os.pathsep.join([*map(str, TOOLCHAINS.glob("*/bin")), os.environ["PATH"]])
    tool = shutil.which(client.command[0], path=path)
    require(tool, f"{client.command[0]}, to build AWS's client for {language}")
    built = subprocess.run(
        [str(tool), *client.command[1:]],
        cwd=folder,
        env=os.environ | client.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if built.returncode and any(words in built.stdout for words in UNREACHABLE):
        require(False, f"the registry of {language} cannot be reached: {built.stdout[-500:]}")
    assert built.returncode == 0, built.stdout
    if client.kept and not kept.is_dir():
        shutil.copytree(folder / client.kept, kept, symlinks=True)
    return folder


def test_a_request_is_served(function):
    answer = function.ask("POST", "/a?name=Ada", content=b"body", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.text) == (201, "Ada ✓ body")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-id"] == answer.headers["x-request-id"]
    function.logged(answer, f"serving {answer.headers['x-request-id']}")


def test_an_error_is_told_and_the_program_lives(function):
    answer = function.get("/raise")
    assert (answer.status_code, answer.json()["code"]) == (500, "function_error")
    assert "the reason ✗" in answer.json()["detail"]
    assert function.get("/a").status_code == 201
    assert len(function.instances()) == 1
