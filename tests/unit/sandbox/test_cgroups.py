import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from martlet.sandbox.cgroups import Group, GroupV1, GroupV2, Limits, Usage
from martlet.sandbox.hierarchies import candidates, find_own, find_top
from tests.alone import alone
from tests.conftest import require

LIMITS = Limits(memory=64 << 20, cpu=250, processes=40)


def mountinfo(place: Path, kind: str, options: str) -> str:
    return f"31 23 0:28 / {place} rw,relatime shared:9 - {kind} {kind} rw,{options}\n"


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A folder that looks like the top of a v2 tree."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids\n")
    for name in (
        "cgroup.subtree_control",
        "cpu.max",
        "cpu.weight",
        "memory.max",
        "memory.oom.group",
        "pids.max",
    ):
        (tmp_path / name).touch()
    return tmp_path


def test_a_host_with_one_tree_is_recognised(unified: Path):
    top = find_top(mountinfo(unified, "cgroup2", "nsdelegate"))

    assert isinstance(top, GroupV2)
    assert str(top) == str(unified)


def test_a_host_with_a_tree_for_each_controller_is_recognised(tmp_path: Path):
    mounts = (
        mountinfo(tmp_path / "memory", "cgroup", "memory")
        + mountinfo(tmp_path / "cpu,cpuacct", "cgroup", "cpu,cpuacct")
        + mountinfo(tmp_path / "pids", "cgroup", "pids")
    )

    top = find_top(mounts)

    assert isinstance(top, GroupV1)
    top.below("a").create()
    assert sorted(path.parent.name for path in tmp_path.glob("*/a")) == ["cpu,cpuacct", "memory", "pids"]


def test_a_v2_tree_without_the_controllers_does_not_count(unified: Path):
    (unified / "cgroup.controllers").write_text("hugetlb\n")

    assert find_top(mountinfo(unified, "cgroup2", "x")) is None


def test_a_host_without_cgroups_has_none():
    assert find_top(mountinfo(Path("/tmp"), "tmpfs", "size=1m")) is None


def test_the_group_of_a_process_is_found_in_each_v1_tree(tmp_path: Path):
    mounts = (
        mountinfo(tmp_path / "memory", "cgroup", "memory")
        + mountinfo(tmp_path / "cpu,cpuacct", "cgroup", "cpu,cpuacct")
        + mountinfo(tmp_path / "pids", "cgroup", "pids")
    )
    memberships = "5:memory:/lent/to/me\n4:cpu,cpuacct:/mine\n3:pids:/\n2:devices:/x\n0::/\n"

    own = find_own(mounts, memberships)

    assert isinstance(own, GroupV1)
    own.below("a").create()
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/a"))
    assert found == ["cpu,cpuacct/mine/a", "memory/lent/to/me/a", "pids/a"]


def test_the_group_of_a_process_is_found_in_a_container_that_sees_a_part_of_the_tree(unified: Path):
    (unified / "mine").mkdir()
    (unified / "mine" / "cgroup.controllers").write_text("cpu memory pids\n")
    mounts = mountinfo(unified, "cgroup2", "nsdelegate").replace(" / ", " /container ", 1)

    assert str(find_own(mounts, "0::/container/mine\n")) == str(unified / "mine")
    assert find_own(mounts, "0::/elsewhere\n") is None


def test_a_process_that_was_moved_aside_still_belongs_to_the_group(unified: Path):
    (unified / "rest").mkdir()

    assert str(find_own(mountinfo(unified, "cgroup2", "x"), "0::/rest\n")) == str(unified)


def test_the_top_is_preferred_to_the_group_of_a_process(unified: Path):
    (unified / "mine").mkdir()
    (unified / "mine" / "cgroup.controllers").write_text("cpu memory pids\n")

    found = candidates(mountinfo(unified, "cgroup2", "x"), "0::/mine\n")

    assert list(map(str, found)) == [str(unified), str(unified / "mine")]


def test_v2_hands_controllers_down_to_the_group(unified: Path):
    group = GroupV2(dict.fromkeys(("memory", "pids", "cpu"), unified)).below("lane").below("cell")

    group.create()

    for parent in (unified, unified / "lane"):
        assert (parent / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (unified / "lane" / "cell").is_dir()
    assert not (unified / "lane" / "cell" / "cgroup.subtree_control").exists()


def test_v2_limits_are_written_in_its_terms(unified: Path):
    (unified / "memory.swap.max").touch()
    group = GroupV2(dict.fromkeys(("memory", "pids", "cpu"), unified))

    group.limit(LIMITS)

    written = {name: (unified / name).read_text().strip() for name in os.listdir(unified) if "." in name}
    assert written["memory.max"] == str(64 << 20)
    assert written["memory.swap.max"] == "0"
    assert written["memory.oom.group"] == "1"
    assert written["cpu.max"] == "25000 100000"
    assert written["pids.max"] == "40"


CHANGES = [
    ({}, set()),
    ({"memory": 1 << 20}, {"memory"}),
    ({"cpu": None}, {"cpu"}),
    ({"processes": 7}, {"pids"}),
]


@pytest.mark.parametrize(("change", "controllers"), CHANGES)
@pytest.mark.parametrize("kind", [GroupV1, GroupV2])
def test_only_limits_that_differ_from_those_before_are_written(
    tmp_path: Path, kind: type[Group], change: dict[str, Any], controllers: set[str]
):
    files = (
        "memory.limit_in_bytes",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
        "memory.max",
        "cpu.max",
        "pids.max",
    )
    for name in (*files, "memory.oom.group"):
        (tmp_path / name).touch()

    kind(dict.fromkeys(("memory", "pids", "cpu"), tmp_path)).limit(replace(LIMITS, **change), LIMITS)

    assert {path.name.partition(".")[0] for path in tmp_path.iterdir() if path.read_text()} == controllers


def test_v2_without_a_cpu_limit_has_the_whole_core(unified: Path):
    GroupV2(dict.fromkeys(("memory", "pids", "cpu"), unified)).limit(Limits(1 << 20, None, 1))

    assert (unified / "cpu.max").read_text().strip() == "max 100000"


def test_v2_weighs_a_group_in_its_terms(unified: Path):
    GroupV2(dict.fromkeys(("memory", "pids", "cpu"), unified)).weigh(10)

    assert (unified / "cpu.weight").read_text() == "10\n"


def test_v2_usage_is_read_in_its_terms(unified: Path):
    (unified / "memory.current").write_text("1048576\n")
    (unified / "cpu.stat").write_text("usage_usec 2500\nuser_usec 2000\nsystem_usec 500\n")
    (unified / "pids.current").write_text("3\n")
    (unified / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 1\n")

    usage = GroupV2(dict.fromkeys(("memory", "pids", "cpu"), unified)).usage()

    assert usage == Usage(memory_bytes=1 << 20, cpu_ms=2.5, processes=3, oom_kills=1)


def test_a_group_that_is_gone_uses_nothing(tmp_path: Path):
    assert GroupV2(dict.fromkeys(("memory", "pids", "cpu"), tmp_path / "gone")).usage() is None
    assert GroupV1(dict.fromkeys(("memory", "pids", "cpu", "cpuacct"), tmp_path / "gone")).usage() is None


def test_removing_a_group_that_is_gone_succeeds(tmp_path: Path):
    assert GroupV2({"memory": tmp_path / "gone"}).remove()


def sleeper(group: Group) -> subprocess.Popen[bytes]:
    """A process that joined the group through its doors and waits."""
    doors = group.open_doors()

    def join() -> None:
        for door in doors:
            os.write(door, b"0")

    try:
        return subprocess.Popen(["sleep", "600"], preexec_fn=join)
    finally:
        for door in doors:
            os.close(door)


def ended_by(process: subprocess.Popen[bytes]) -> int:
    return -process.wait(timeout=20)


def is_removed(group: Group) -> bool:
    """Removes a group whose processes have been waited for, which some kernels still count for a moment."""
    group.empty(time.monotonic() + 20)
    return group.remove()


def host_group(name: str) -> Group:
    """A group of this test run on the real host."""
    top = find_top(Path("/proc/self/mountinfo").read_text())
    require(top is not None and top.writable(), "a writable cgroup hierarchy with memory, pids and cpu")
    assert top is not None
    return top.below(f"martlet-test-{os.getpid()}-{name}")


@pytest.mark.root
def test_a_group_of_this_host_counts_limits_and_ends_what_is_in_it():
    group = host_group("life").below("cell")
    group.create()
    try:
        group.limit(LIMITS)
        process = sleeper(group)
        usage = group.usage()
        assert usage is not None
        assert usage.processes == 1
        assert usage.memory_bytes < LIMITS.memory
        assert (group.cpu_ms() or 0) >= usage.cpu_ms > 0
        group.weigh(10)
        assert not group.remove()

        host_group("life").kill()

        assert ended_by(process) == signal.SIGKILL
    finally:
        assert is_removed(host_group("life"))


@pytest.mark.root
def test_limits_can_be_raised_and_lowered():
    group = host_group("changes")
    group.create()
    try:
        for memory in (LIMITS.memory, 4 * LIMITS.memory, LIMITS.memory // 4):
            group.limit(replace(LIMITS, memory=memory))
    finally:
        assert group.remove()


@pytest.mark.root
def test_the_kernel_ends_a_process_over_the_memory_of_its_group():
    group = host_group("memory")
    group.create()
    try:
        group.limit(LIMITS)
        doors = group.open_doors()

        def eat() -> None:
            for door in doors:
                os.write(door, b"0")
            bytearray(128 << 20)

        with pytest.raises(AssertionError, match="ended with -9"):
            alone(eat)

        usage = group.usage()
        assert usage is not None
        assert usage.oom_kills == 1
        for door in doors:
            os.close(door)
    finally:
        assert is_removed(group)


@pytest.mark.root
def test_what_lies_in_sockets_is_limited_like_memory():
    group = host_group("sockets")
    group.create()
    try:
        group.limit(LIMITS)
        doors = group.open_doors()

        def fill() -> int:
            for door in doors:
                os.write(door, b"0")
            open_ends: list[socket.socket] = []
            sent = 0
            for _ in range(80):  # of which each takes some 10 MB where nothing stops it
                with socket.create_server(("127.0.0.1", 0)) as listener:
                    writer = socket.create_connection(listener.getsockname())
                    open_ends += [writer, listener.accept()[0]]
                writer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sent += writer.send(bytes(65536))
            return sent

        assert alone(fill) < 2 * LIMITS.memory
        for door in doors:
            os.close(door)
    finally:
        assert is_removed(group)


@pytest.fixture
def real_v2(request: pytest.FixtureRequest) -> GroupV2:
    """A group in a v2 tree of this host, with a controller that it has to give, whichever that is."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = Path(line.split()[4])
        if " - cgroup2 " in line and os.access(place, os.W_OK):
            controllers = (place / "cgroup.controllers").read_text().split()
            if controllers:
                top = GroupV2({controllers[0]: place})
                return top.below(f"martlet-test-{os.getpid()}")
    require(False, "a writable v2 tree")
    raise AssertionError


@pytest.mark.root
def test_a_real_v2_group_ends_all_that_is_below_it(real_v2: GroupV2):
    cells = [real_v2.below(name) for name in ("a", "b")]
    for cell in cells:
        cell.create()
    processes = [sleeper(cell) for cell in cells]

    real_v2.kill()

    assert [ended_by(process) for process in processes] == [signal.SIGKILL] * 2
    assert is_removed(real_v2)


@pytest.mark.root
def test_a_real_v2_group_with_processes_moves_them_to_hand_on_controllers(real_v2: GroupV2):
    real_v2.create()
    process = sleeper(real_v2)
    try:
        real_v2.below("cell").create()

        assert f"/{Path(str(real_v2)).name}/rest\n" in Path(f"/proc/{process.pid}/cgroup").read_text()
    finally:
        process.kill()
        process.wait()
        assert is_removed(real_v2)
