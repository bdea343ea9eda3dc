"""The driver keeps all of its promises without root: its own tests, run by a user without any right."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unprivileged import REPOSITORY, stage

HERE = Path(__file__).parent
CONTRACT = REPOSITORY / "tests/contract/test_driver.py"
CONFINEMENT = [HERE / "test_confinement.py", HERE / "test_network.py"]

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def passed(files: list[Path], left_out: str, *, lent: bool) -> int:
    """Runs tests of the process driver on a stage, but those with a name; returns how many there were."""
    with stage(lent=lent) as place:
        kept = ["-m", "not engine", "-k", f"not fake and not {left_out}"]
        options = ["-q", *kept, "-p", "no:cacheprovider", f"--basetemp={place.folder}/base"]
        program = [sys.executable, "-m", "pytest", f"--rootdir={REPOSITORY}", *options, *files]
        done = subprocess.run(
            place.command(*program), env=place.environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    (count,) = re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)
    return int(count)


def test_with_ids_that_are_lent_to_the_user_all_is_held():
    # Warm programs and cold ones are confined by one way, which `CONFINEMENT` attacks.
    assert passed([CONTRACT, HERE / "test_process.py", *CONFINEMENT], "warm-program", lent=True) > 70


def test_with_one_id_only_functions_are_still_confined():
    assert passed(CONFINEMENT, "[program]", lent=False) > 20
