"""Builds run in the same sandbox without root: the tests of the workshop, run by a user without any right."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unprivileged import REPOSITORY, stage

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("lent", [True, False], ids=["with lent ids", "with one id"])
def test_the_sandbox_of_builds_is_the_same_without_root(lent: bool) -> None:
    with stage(lent=lent) as place:
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            f"--rootdir={REPOSITORY}",
            f"--basetemp={place.folder}/base",
        ]
        tests = Path(__file__).with_name("test_workshop.py")
        command = place.command(sys.executable, "-m", "pytest", *options, tests)
        done = subprocess.run(command, env=place.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
