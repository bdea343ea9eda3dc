import errno
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from martlet.sandbox import landlock, network, privileges, root, syscalls
from martlet.sandbox.landlock import Ruleset
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.network import NONE
from martlet.sandbox.script import AT_FDCWD, Script, Slot, text
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.syscalls import Clone
from tests.alone import alone

POLICY = Policy.load()


@pytest.fixture
def script() -> Script:
    return Script(POLICY.numbers)


def test_nothing_happens_before_it_runs(script: Script, tmp_path: Path):
    script.make_folder(str(tmp_path / "made"))

    assert not (tmp_path / "made").exists()

    script.run()
    assert (tmp_path / "made").is_dir()


def test_a_rehearsal_asks_for_nothing(script: Script, tmp_path: Path):
    made, missing = Slot(-7), Slot()
    script.make_folder(str(tmp_path / "made"))
    script.call("openat", AT_FDCWD, str(tmp_path), os.O_RDONLY, into=made)
    script.call("close", -1)
    script.call("getppid", into=missing, wanted=-2)
    before = os.listdir("/proc/self/fd")

    script.rehearse()

    assert not (tmp_path / "made").exists()
    assert made.value == -7
    assert os.listdir("/proc/self/fd") == before


def test_what_a_call_returns_is_there_for_the_next_ones(script: Script, tmp_path: Path):
    file = Slot()
    script.call("openat", AT_FDCWD, str(tmp_path / "a"), os.O_WRONLY | os.O_CREAT, 0o600, into=file)
    script.call("write", file, b"hello\0", 6)
    script.call("close", file)

    script.run()

    assert (tmp_path / "a").read_bytes() == b"hello\0"
    with pytest.raises(OSError):
        os.fstat(file.value)


def test_a_number_that_is_filled_in_later_is_the_one_of_that_moment(script: Script):
    reader, writer = os.pipe()
    door = Slot()
    script.call("write", door, b"x", 1)
    door.value = writer

    script.run()
    script.run()

    assert os.read(reader, 10) == b"xx"


def test_the_first_call_that_fails_is_named_and_is_the_last(script: Script, tmp_path: Path):
    script.unmount(str(tmp_path / "nowhere"))
    script.make_folder(str(tmp_path / "made"))

    with pytest.raises(FileNotFoundError, match="umount2"):
        script.run()

    assert not (tmp_path / "made").exists()


def test_an_error_may_be_forgiven_and_only_that_one(script: Script, tmp_path: Path):
    script.call("mkdirat", AT_FDCWD, str(tmp_path), 0o700, forgiven=errno.EEXIST)
    script.run()

    script.call("mkdirat", AT_FDCWD, str(tmp_path / "a" / "b"), 0o700, forgiven=errno.EEXIST)
    with pytest.raises(FileNotFoundError):
        script.run()


def test_an_answer_that_was_not_wanted_is_a_failure(script: Script):
    _, writer = os.pipe()
    script.call("write", writer, b"xy", 2, wanted=1)

    with pytest.raises(OSError, match="write: 2, where 1 was wanted"):
        script.run()


def test_who_holds_on_to_a_parent_that_is_gone_fails(script: Script):
    lifeline = Lifeline()
    os.close(lifeline.writer)
    lifeline.hold_by(script)

    def hold() -> str:
        try:
            script.run()
        except OSError as error:
            return str(error)
        return "held"

    assert "ppoll" in alone(hold)


@pytest.mark.root
def test_a_network_of_ones_own_has_a_loopback_that_is_up(script: Script):
    network.enter_by(script, NONE, None)

    def connect() -> str:
        script.run()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        return ",".join(name for _, name in socket.if_nameindex())

    assert alone(connect) == "lo"


@pytest.mark.root
def test_folders_below_the_scratch_space_are_made_in_it(script: Script):
    place = f"{root.SCRATCH}/deep/down/here"
    root.mount_scratch(1 << 20, calls=script)
    root.show_in_scratch(script, ["/usr/elsewhere", place])

    def look() -> list[str]:
        syscalls.unshare(Clone.MOUNT)
        syscalls.make_private()
        with suppress(FileNotFoundError):  # what is behind them is in a private root only
            script.run()
        return [each for each, _, _ in os.walk(root.SCRATCH)]

    assert place in alone(look)


def test_rules_that_were_written_down_hold(script: Script, tmp_path: Path):
    version = landlock.version()
    if version == 0:
        pytest.skip("the kernel has no Landlock")
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "file").touch()
    rules = {
        str(tmp_path / "open"): landlock.ALL,
        str(tmp_path / "link"): landlock.ALL,
        str(tmp_path / "file"): landlock.ALL,
        str(tmp_path / "missing"): landlock.READ,
    }
    (tmp_path / "log").touch()
    log, nowhere, ruleset = (
        os.open(tmp_path / "log", os.O_RDWR),
        os.memfd_create(""),
        os.open(os.devnull, os.O_RDONLY),
    )
    landlock.rule_by(script, rules, ruleset)
    landlock.rule_open_by(script, log, landlock.ALL, ruleset)
    landlock.rule_open_by(script, nowhere, landlock.ALL, ruleset)

    def attempt() -> dict[str, bool]:
        privileges.forbid_new_privileges()
        script.run()
        Ruleset(version, made=ruleset).enforce()
        names = ("open/a", "closed/a", "link/b", "file", "log", "a")
        return {name: _can_write(tmp_path / name) for name in names}

    assert alone(attempt) == {
        "open/a": True,
        "closed/a": False,
        "link/b": True,
        "file": True,
        "log": True,
        "a": False,
    }


def test_a_filter_that_was_written_down_holds(script: Script):
    privileges.forbid_new_privileges(script)
    Filter(POLICY).load_by(script)

    def attempt() -> str:
        script.run()
        try:
            os.chroot("/")
        except PermissionError:
            return "refused"
        return "allowed"

    assert alone(attempt) == "refused"


class Elsewhere:
    """The memory of another process."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def keep(self, data: bytes) -> int:
        address = 0x7000 + 0x100 * len(self.kept)
        self.kept[address] = data
        return address


def test_a_script_is_placed_with_what_its_calls_read_and_its_slots_as_they_are_then(script: Script):
    elsewhere, door, name = Elsewhere(), Slot(3), text(8)
    script.call("write", door, b"x\0y", 3)
    script.call("mkdirat", AT_FDCWD, "a", 0o700, forgiven=errno.EEXIST)
    script.call("sethostname", name, door)
    script.call("setgroups", 0, None)
    door.value, name.value = 4, b"later"

    placed = list(script.placed(elsewhere.keep))

    assert [numbers[0] for numbers, _ in placed] == [
        POLICY.numbers[each] for each in ("write", "mkdirat", "sethostname", "setgroups")
    ]
    assert [numbers[1:] for numbers, _ in placed] == [
        [4, 0x7000, 3],
        [AT_FDCWD, 0x7100, 0o700],
        [0x7200, 4],
        [0, 0],
    ]
    assert [may_fail for _, may_fail in placed] == [False, True, False, False]
    assert elsewhere.kept == {0x7000: b"x\0y\0", 0x7100: b"a\0", 0x7200: b"later\0\0\0"}


def test_a_filter_is_placed_with_its_instructions(script: Script):
    elsewhere = Elsewhere()
    Filter(POLICY).load_by(script)

    ((numbers, _),) = script.placed(elsewhere.keep)

    length, instructions = struct.unpack("H6xQ", elsewhere.kept[numbers[3]])
    assert length > 100
    assert len(elsewhere.kept[instructions]) == 8 * length


def test_a_call_whose_result_matters_cannot_be_placed(script: Script):
    script.call("write", 1, b"xy", 2, wanted=1)

    with pytest.raises(ValueError, match="write"):
        list(script.placed(Elsewhere().keep))


def _can_write(file: Path) -> bool:
    try:
        file.write_text("x")
    except PermissionError:
        return False
    return True
