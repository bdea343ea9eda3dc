"""AWS's own runtime clients of other languages, unmodified, built as users of Lambda build them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import TOOLCHAINS, require
from tests.runtimes.conftest import Function

CLIENTS = Path(__file__).parent / "lambda_clients"
CACHES = TOOLCHAINS / "caches"
"""What is compiled stays for later runs; Go's standard library is that of all builds of `tests.runtimes.build`."""
BUILDS = {
    "go": (
        ["go", "build", "-trimpath", "-tags", "lambda.norpc", "-o", "bootstrap", "."],
        Path("bootstrap"),
        {"CGO_ENABLED": "0", "GOCACHE": str(CACHES / "go/build")},
    ),
    "rust": (
        ["cargo", "build", "--locked"],
        CACHES / "lambda-rust/debug/bootstrap",
        {
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "CARGO_PROFILE_DEV_CODEGEN_UNITS": "1",
            "CARGO_TARGET_DIR": str(CACHES / "lambda-rust"),
        },
    ),
}
"""How a program is built, where it lies then (below its source, unless elsewhere), and what the environment says."""
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


@pytest.fixture(scope="module", params=BUILDS)
def function(request, platform, tmp_path_factory):
    """A function with the client of a language, deployed as a folder with its ``bootstrap`` alone."""
    folder = tmp_path_factory.mktemp(f"lambda-{request.param}")
    package = folder / request.param  # which the function is called after
    package.mkdir()
    shutil.copy(build(request.param, folder / "source"), package / "bootstrap")
    return Function(platform, package, "lambda")


def build(language: str, folder: Path) -> Path:
    """Builds a client with its language's ordinary means; returns the program."""
    command, program, variables = BUILDS[language]
    shutil.copytree(CLIENTS / language, folder)
    path = os.pathsep.join([*map(str, TOOLCHAINS.glob("*/bin")), os.environ["PATH"]])
    tool = shutil.which(command[0], path=path)
    require(tool, f"{command[0]}, to build AWS's client for {language}")
    built = subprocess.run(
        [str(tool), *command[1:]],
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if built.returncode and any(words in built.stdout for words in UNREACHABLE):
        require(False, f"the registry of {language} cannot be reached: {built.stdout[-500:]}")
    assert built.returncode == 0, built.stdout
    return folder / program


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
