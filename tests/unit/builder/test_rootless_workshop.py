"""Builds run in the same sandbox without root: the tests of the workshop, run by a user without any right."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unprivileged import REPOSITORY, stage

CONFINED = [
    "it_starts_in_the_source_and_may_write_to_its_folders",
    "it_sees_what_it_is_shown_and_cannot_change_it",
    "it_has_a_user_of_its_own_without_any_power",
    "it_sees_no_file_and_no_process_of_the_host",
    "without_a_network_it_reaches_not_even_this_machine",
    "what_it_leaves_running_ends_with_it",
    "links_and_modes_cannot_make_the_platform_touch_what_is_its_own",
]
BOUNDED = [
    "what_is_cancelled_is_gone_with_all_it_has_started",
    "it_ends_with_a_platform_that_is_killed",
    "the_cgroup_of_a_build_that_is_killed_with_its_platform_is_removed_by_the_next",
    "it_may_not_fill_the_disk",
    "it_may_not_fill_the_memory",
    "a_bomb_of_processes_goes_out",
    "folders_deeper_than_anything_can_be_removed",
]
"""What takes rights to be ended, counted or removed; the rest of the tests would say the same as with root."""

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("lent", "names"), [(True, CONFINED + BOUNDED), (False, CONFINED)], ids=["with lent ids", "with one id"]
)
def test_the_sandbox_of_builds_is_the_same_without_root(lent: bool, names: list[str]) -> None:
    file = Path(__file__).with_name("test_workshop.py")
    tests = [f"{file}::test_{name}" for name in names]
    with stage(lent=lent) as place:
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            f"--rootdir={REPOSITORY}",
            f"--basetemp={place.folder}/base",
        ]
        command = place.command(sys.executable, "-m", "pytest", *options, *tests)
        done = subprocess.run(command, env=place.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(names)} passed" in done.stdout
