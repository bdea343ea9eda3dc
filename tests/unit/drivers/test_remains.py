"""How a platform knows what is its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from martlet.drivers.remains import group_name

RUN = Path("/run/martlet/0badcafe")


def in_a_container(host: str) -> str:
    """Returns the name of a lane's cgroup in a namespace of processes of its own, on a host of that name."""
    ask = f"from pathlib import Path; from martlet.drivers.remains import group_name as g; print(g(Path('{RUN}'), 0))"
    command = f'hostname {host} && exec "$0" -c "$1"'
    made = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "sh", "-c", command, sys.executable, ask]
    return subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.root
def test_containers_that_share_a_tree_of_cgroups_know_their_own_by_the_name_of_their_host() -> None:
    one, again, other = in_a_container("one"), in_a_container("one"), in_a_container("other")
    assert one == again
    assert len({one, other, group_name(RUN, 0)}) == 3
