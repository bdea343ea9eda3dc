"""Jails of Firecracker: how they are asked for, what is put into them, and that nothing of them is left."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from martlet.microvm.firecracker.errors import JailError
from martlet.microvm.firecracker.jailer import Furnishing, Jail, limits_as_settings
from martlet.microvm.firecracker.vsock import from_guest
from martlet.sandbox.cgroups import Limits
from martlet.sandbox.hierarchies import find_everywhere

USER = 65_000
MOVE_IN = """
import os, signal, sys
os.chroot(sys.argv[1])
os.chdir("/")
print("in", flush=True)
signal.pause()
"""


def jail_at(base: Path, **fields: object) -> Jail:
    jail = Jail("vm-1", base, Path("/usr/bin/firecracker"), USER, USER)
    return replace(jail, **fields)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@contextmanager
def inhabitant(root: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-S", "-c", MOVE_IN, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_command_line_says_what_the_jail_is():
    jail = jail_at(
        Path("/srv/jails"),
        executable=Path("/opt/firecracker-v1.12.1"),
        netns=Path("/run/netns/fn"),
        new_pid_ns=True,
        daemonize=True,
        cgroup_version=1,
        parent_cgroup="martlet/lane-0",
        cgroups={"memory.limit_in_bytes": "1048576", "cpu.cfs_quota_us": "-1"},
        max_file_bytes=1 << 30,
        max_open_files=512,
    )

    assert jail.command(Path("/opt/jailer"), ["--mmds-size-limit", "102400"]) == [
        *("/opt/jailer", "--id", "vm-1", "--exec-file", "/opt/firecracker-v1.12.1"),
        *("--uid", str(USER), "--gid", str(USER), "--chroot-base-dir", "/srv/jails"),
        *("--netns", "/run/netns/fn", "--new-pid-ns", "--daemonize"),
        *("--cgroup-version", "1", "--parent-cgroup", "martlet/lane-0"),
        *("--cgroup", "memory.limit_in_bytes=1048576", "--cgroup", "cpu.cfs_quota_us=-1"),
        *("--resource-limit", "fsize=1073741824", "--resource-limit", "no-file=512"),
        *("--", "--api-sock", "api.sock", "--mmds-size-limit", "102400"),
    ]
    assert jail.root == Path("/srv/jails/firecracker-v1.12.1/vm-1/root")
    assert jail.api_socket == jail.root / "api.sock"


def test_nothing_is_asked_for_that_was_not_said():
    assert jail_at(Path("/srv")).command(Path("jailer")) == [
        *("jailer", "--id", "vm-1", "--exec-file", "/usr/bin/firecracker"),
        *("--uid", str(USER), "--gid", str(USER), "--chroot-base-dir", "/srv"),
        *("--", "--api-sock", "api.sock"),
    ]


def test_a_link_to_the_executable_is_followed_as_the_jailer_does(base: Path):
    (base / "firecracker-v1.12.1-x86_64").touch()
    (base / "firecracker").symlink_to("firecracker-v1.12.1-x86_64")

    assert (
        jail_at(base, executable=base / "firecracker").folder == base / "firecracker-v1.12.1-x86_64" / "vm-1"
    )


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": ""}, "id"),
        ({"id": "a" * 65}, "id"),
        ({"id": "../x"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"executable": Path("/usr/bin/qemu")}, "executable"),
        ({"uid": 0}, "uid"),
        ({"gid": 0}, "gid"),
        ({"base": Path("srv")}, "base"),
        ({"parent_cgroup": "/a"}, "parent_cgroup"),
        ({"parent_cgroup": "a/../.."}, "parent_cgroup"),
        ({"parent_cgroup": ""}, "parent_cgroup"),
        ({"cgroups": {"memory": "1"}}, "cgroups.memory"),
        ({"cgroups": {"../memory.max": "1"}}, "cgroups.../memory.max"),
        ({"cgroups": {"memory.max": ""}}, "cgroups.memory.max"),
        ({"cgroups": {"memory.max": "a=b"}}, "cgroups.memory.max"),
        ({"base": Path("/" + "x" * 90)}, "base: the paths of sockets"),
    ],
)
def test_what_is_no_jail_is_refused_by_name(fields: dict, named: str):
    with pytest.raises(JailError, match=f"^[a-z, ]*{named}"):
        jail_at(**{"base": Path("/srv"), **fields})


def test_the_longest_path_that_is_taken_is_one_that_a_socket_can_have():
    longest = None
    for length in range(1, 100):
        try:
            longest = jail_at(Path("/" + "x" * length))
        except JailError:
            break
    assert longest is not None
    assert len(bytes(from_guest(longest.vsock, 2**32 - 2))) == 107


def test_limits_are_written_as_the_trees_have_them():
    limits = Limits(memory=1 << 28, cpu=500, processes=64)

    assert list(limits_as_settings(limits, 1).items()) == [
        ("memory.limit_in_bytes", "268435456"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("pids.max", "64"),
    ]
    assert limits_as_settings(limits, 2) == {
        "memory.max": "268435456",
        "cpu.max": "50000 100000",
        "pids.max": "64",
    }
    assert limits_as_settings(Limits(1, None, 1), 2)["cpu.max"] == "max 100000"
    assert limits_as_settings(Limits(1, None, 1), 1)["cpu.cfs_quota_us"] == "-1"
    jail_at(Path("/srv"), cgroups=limits_as_settings(limits, 2))


@pytest.mark.root
def test_what_is_only_read_is_linked_where_it_is_safe(base: Path):
    jail = jail_at(base)
    for name, mode, owner in (
        ("plain", 0o644, 0),
        ("own", 0o644, USER),
        ("secret", 0o600, 0),
        ("open", 0o666, 0),
        ("written", 0o644, 0),
    ):
        (base / name).write_text(name)
        (base / name).chmod(mode)
        os.chown(base / name, owner, owner)
    (base / "link").symlink_to("plain")
    jail.furnish(
        [
            *(Furnishing(name, base / name) for name in ("plain", "own", "secret", "open", "link")),
            Furnishing("written", base / "written", writable=True),
        ]
    )

    def found(name: str) -> tuple[bool, int, int]:
        at = (jail.root / name).lstat()
        same = os.path.samestat(at, (base / name).stat())
        assert (jail.root / name).read_text() == (base / name).read_text()
        return same, at.st_uid, at.st_mode & 0o777

    assert found("plain") == (True, 0, 0o644)
    assert found("link") == (True, 0, 0o644)
    assert found("own") == (False, USER, 0o400)
    assert found("secret") == (False, USER, 0o400)
    assert found("open") == (False, USER, 0o400)
    assert found("written") == (False, USER, 0o600)

    (base / "plain").write_text("still the same file")
    jail.furnish([Furnishing("written", base / "plain")])
    assert (jail.root / "written").samefile(base / "plain")
    jail.remove()
    assert (base / "plain").read_text() == "still the same file"


@pytest.mark.root
def test_what_lies_on_another_file_system_is_copied(base: Path):
    other = Path("/dev/shm", base.name)
    other.write_text("far")
    other.chmod(0o644)
    try:
        assert other.stat().st_dev != base.stat().st_dev
        jail = jail_at(base)
        jail.furnish([Furnishing("far", other)])
        assert (jail.root / "far").read_text() == "far"
        assert (jail.root / "far").stat().st_uid == USER
    finally:
        other.unlink()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_furnishing_stays_in_the_jail(base: Path, name: str):
    (base / "file").touch()
    with pytest.raises(JailError, match="plain name"):
        jail_at(base).furnish([Furnishing(name, base / "file")])


def test_a_furnishing_must_be_a_file(base: Path):
    for missing in (base / "missing", base):
        with pytest.raises(JailError, match=f"there is no file {missing}"):
            jail_at(base).furnish([Furnishing("a", missing)])


@pytest.mark.root
def test_a_jail_is_removed_with_whoever_lives_there_and_nobody_else(base: Path):
    jail, neighbour = jail_at(base), jail_at(base, id="vm-2")
    with ExitStack() as stack:
        outside = base / "outside"
        outside.mkdir()
        (outside / "file").touch()
        for each in (jail, neighbour):
            each.furnish([])
            (each.root / "planted").symlink_to(outside)
        first, second = (stack.enter_context(inhabitant(jail.root)) for _ in range(2))
        other = stack.enter_context(inhabitant(neighbour.root))

        jail.remove()
        assert (first.wait(20), second.wait(20)) == (-9, -9)
        assert not jail.folder.exists()
        assert other.poll() is None
        assert neighbour.root.exists()
        assert (outside / "file").exists()

        jail.remove()
        neighbour.remove()
        assert other.wait(20) == -9
        assert not neighbour.folder.exists()


@pytest.mark.root
def test_the_group_of_a_jail_is_emptied_and_removed(base: Path):
    parent = f"martlet-test-{secrets.token_hex(4)}"
    jail = jail_at(base, parent_cgroup=f"{parent}/lane", cgroups={"pids.max": "10"})
    top = find_everywhere(Path("/proc/self/mountinfo").read_text()).below(parent)
    group = top.below("lane").below(jail.id)
    group.create()
    try:
        with subprocess.Popen(["sleep", "1000"]) as member:
            (Path(group.directories[0]) / "cgroup.procs").write_text(str(member.pid))
            jail.remove()
            assert member.wait(20) == -9
        assert not any(Path(directory).exists() for directory in group.directories)
        assert all(Path(directory).parent.exists() for directory in group.directories)
        jail.remove()
    finally:
        assert top.remove()
