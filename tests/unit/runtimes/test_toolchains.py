"""Whatever a runtime that comes with Martlet needs can be installed by a machine: `make test` does so."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from martlet.runtimes.description import Program, read_description
from martlet.runtimes.runtime import SHIPPED

DESCRIPTIONS = sorted(SHIPPED.glob("*/runtime.toml"))
SCRIPTS = sorted(SHIPPED.glob("*/toolchain"))
WITH_MARTLET = {"{interpreter}", "uv"}
"""Programs that the virtual environment has."""


def needed() -> Iterator[Any]:
    """Yields every program that a runtime needs besides Martlet's own, with the script that may bring it."""
    for path in DESCRIPTIONS:
        toolchain = read_description(path).toolchain
        for program in () if toolchain is None else (toolchain, *toolchain.also):
            if program.programs[0] not in WITH_MARTLET:
                name = f"{path.parent.name}-{program.key}"
                yield pytest.param(program, path.parent / "toolchain", id=name)


@pytest.mark.parametrize(("program", "script"), list(needed()))
def test_a_program_has_debian_packages_or_a_script_that_installs_it(program: Program, script: Path) -> None:
    assert program.debian or script in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.parent.name)
def test_a_script_is_of_a_runtime_and_of_shell(script: Path) -> None:
    assert script.parent / "runtime.toml" in DESCRIPTIONS
    checked = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
