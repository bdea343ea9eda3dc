import os
from pathlib import Path

import pytest

from martlet.sandbox import moves
from martlet.sandbox.syscalls import Mount
from tests.conftest import require

SYSTEMD = (
    "24 1 0:22 / /proc rw,nosuid shared:5 - proc proc rw\n"
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9"
    " - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
)
HYBRID = (
    "34 33 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "43 33 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,favordynmods\n"
)


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        (
            SYSTEMD,
            (
                "/sys/fs/cgroup",
                Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC,
                ["nsdelegate", "memory_recursiveprot"],
            ),
        ),
        (HYBRID, ("/sys/fs/cgroup/unified", Mount(0), ["favordynmods"])),
        ("24 1 0:22 / /proc rw - proc proc rw\n", None),
    ],
)
def test_what_is_kept_of_the_mount_is_read_from_the_kernels_table(mounts, found):
    assert moves.find_tree(mounts) == found


@pytest.mark.root
def test_the_tree_gets_the_option_and_keeps_what_it_had():
    before = moves.find_tree(Path("/proc/self/mountinfo").read_text())
    require(os.geteuid() == 0 and before is not None, "root, and a mounted tree of cgroups v2")
    require(moves.quicken(), "Linux 6.0, in the first namespace of cgroups")

    after = moves.find_tree(Path("/proc/self/mountinfo").read_text())

    assert after[:2] == before[:2]
    assert {*after[2]} == {*before[2], moves.OPTION}
