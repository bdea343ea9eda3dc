"""The driver keeps all of its promises without root: its own tests, run by a user without any right."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unprivileged import REPOSITORY, stage

HERE = Path(__file__).parent
CONFINEMENT = [HERE / "test_confinement.py", HERE / "test_network.py"]
ALL_OF_A_LIFE = [
    "this_host_lacks_nothing",
    "a_specialised_cell_answers_requests",
    "an_instance_out_of_memory_is_counted_until_it_is_destroyed",
    "stats_count_what_an_instance_uses",
    "a_destroyed_instance_is_gone_without_a_report",
    "stopping_ends_an_idle_instance_within_its_grace",
    "what_an_instance_prints_comes_out_of_its_log",
    "many_cells_start_at_once",
    "a_start_that_nobody_waits_for_any_more_leaves_nothing",
    "closing_destroys_what_is_there",
]
"""What of the contract takes rights: to make, count, end and remove what belongs to other users."""
COLD = ["a_specialised_cell_answers_requests", "closing_destroys_what_is_there"]
DEATHS = [
    "cells_die_with_their_zygote_and_the_next_start_has_a_new_one",
    "daemons_that_an_instance_left_behind_die_with_it",
    "nothing_is_left_of_many_lives",
    "a_zygote_to_which_no_lane_comes_back_ends_and_takes_everything_along",
    "the_next_life_of_a_lane_takes_over_the_instances_of_a_killed_one",
    "what_is_not_taken_over_is_swept",
    "a_platform_that_starts_ends_what_waits_for_the_lanes_of_its_former_life",
]
"""What of `test_process` does."""

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]


def of_contract(names: list[str], rig: str) -> list[str]:
    return [f"{REPOSITORY}/tests/contract/test_driver.py::test_{name}[{rig}]" for name in names]


def passed(tests: Sequence[str | Path], *more: str, lent: bool) -> int:
    """Runs tests of the process driver on a stage; returns how many there were."""
    with stage(lent=lent) as place:
        options = ["-q", *more, "-p", "no:cacheprovider", f"--basetemp={place.folder}/base"]
        program = [sys.executable, "-m", "pytest", f"--rootdir={REPOSITORY}", *options, *tests]
        done = subprocess.run(
            place.command(*program), env=place.environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    (count,) = re.findall(r"^(\d+) passed", done.stdout, re.MULTILINE)
    return int(count)


def test_with_ids_that_are_lent_to_the_user_all_is_held():
    deaths = [f"{HERE}/test_process.py::test_{name}" for name in DEATHS]
    lives = [*of_contract(ALL_OF_A_LIFE, "process"), *of_contract(COLD, "cold-program")]
    assert passed([*lives, *deaths, *CONFINEMENT], lent=True) > 80


def test_with_one_id_only_functions_are_still_confined():
    assert passed(CONFINEMENT, "-k", "not [program", lent=False) > 30
