"""The policy is complete, and says why."""

import tomllib
from itertools import chain
from pathlib import Path

import pytest

from martlet.sandbox.seccomp import policy as module
from martlet.sandbox.seccomp.policy import ARCHITECTURES, Policy

FOLDER = Path(module.__file__).parent
DOCUMENT = tomllib.loads((FOLDER / "policy.toml").read_text())
ENTRIES = [*DOCUMENT["allow"], *DOCUMENT["absent"], *DOCUMENT["refuse"]]


@pytest.fixture(params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy.load(request.param)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["calls"][0])
def test_every_entry_has_calls_and_a_reason(entry):
    assert entry["calls"]
    assert len(entry["reason"]) > 10
    assert entry.keys() <= {"calls", "reason", "where", "otherwise"}


def test_every_call_that_may_be_made_on_conditions_says_why_it_is_refused_otherwise():
    conditional = {call for entry in DOCUMENT["allow"] if "where" in entry for call in entry["calls"]}
    explained = {call for entry in DOCUMENT["allow"] if "otherwise" in entry for call in entry["calls"]}

    assert conditional == explained


def test_every_call_that_has_a_number_is_decided_and_no_other():
    rows = (FOLDER / "numbers.tsv").read_text().splitlines()[2:]

    assert {row.split("\t")[0] for row in rows} == {call for entry in ENTRIES for call in entry["calls"]}


def test_no_two_calls_have_one_number(policy: Policy):
    assert len(set(policy.numbers.values())) == len(policy.numbers) > 300


def test_numbers_are_those_that_the_architectures_have():
    x86, arm = Policy.load("x86_64").numbers, Policy.load("aarch64").numbers

    assert [x86[name] for name in ("read", "openat", "clone", "seccomp", "clone3")] == [0, 257, 56, 317, 435]
    assert [arm[name] for name in ("read", "openat", "clone", "seccomp", "clone3")] == [63, 56, 220, 277, 435]
    assert "fork" in x86
    assert "fork" not in arm


def test_what_is_shown_of_a_call_has_words(policy: Policy):
    kinds = {shown.kind for shown in chain.from_iterable(policy.shown.values())}

    assert kinds - {"path", "number"} <= policy.words.keys()
    assert set(policy.shown) <= {call for entry in ENTRIES for call in entry["calls"]}


@pytest.mark.parametrize(
    "call",
    [
        *("mount", "pivot_root", "chroot", "setns", "unshare", "bpf", "keyctl", "perf_event_open", "ptrace"),
        *("process_vm_readv", "kcmp", "pidfd_getfd", "kexec_load", "init_module", "reboot", "swapon", "acct"),
        *("quotactl", "name_to_handle_at", "open_by_handle_at", "clock_settime", "syslog", "mount_setattr"),
    ],
)
def test_calls_that_move_the_walls_are_refused_whatever_their_arguments(policy: Policy, call: str):
    assert policy.rules[call].answer == "refuse"


@pytest.mark.parametrize("call", ["clone3", "io_uring_setup", "userfaultfd", "inotify_init1"])
def test_calls_that_libraries_do_without_are_absent(policy: Policy, call: str):
    assert policy.rules[call].answer == "absent"


@pytest.mark.parametrize(
    ("call", "arguments", "answer"),
    [
        ("socket", [1, 1, 0], "allow"),
        ("socket", [2, 1 | 0o2000000, 6], "allow"),
        ("socket", [10, 2, 17], "allow"),
        ("socket", [2, 3, 1], "refuse"),
        ("socket", [2, 5, 132], "refuse"),
        ("socket", [2, 1, 262], "refuse"),
        ("socket", [16, 3, 0], "allow"),
        ("socket", [16, 3, 12], "refuse"),
        ("socket", [17, 3, 0], "refuse"),
        ("socket", [40, 1, 0], "refuse"),
        ("socketpair", [1, 1, 0], "allow"),
        ("socketpair", [30, 1, 0], "refuse"),
        ("clone", [0x3D0F00], "allow"),
        ("clone", [0x10000000 | 17], "refuse"),
        ("clone", [0x20000 | 0x100], "refuse"),
        ("ioctl", [0, 0x5401], "allow"),
        ("ioctl", [0, 0x5412], "refuse"),
        ("ioctl", [0, 0x1_0000_5412], "refuse"),
        ("ioctl", [0, 0x541C], "refuse"),
        ("fcntl", [0, 2], "allow"),
        ("fcntl", [0, 1026], "refuse"),
        ("prctl", [15], "allow"),
        ("prctl", [35], "refuse"),
        ("prctl", [1, 0], "refuse"),
        ("prctl", [1, 15], "refuse"),
        ("prctl", [1, 9], "allow"),
        ("personality", [0], "allow"),
        ("personality", [0xFFFF_FFFF], "allow"),
        ("personality", [0x0400000], "refuse"),
        ("mknodat", [0, 0, 0o010644], "allow"),
        ("mknodat", [0, 0, 0o060644], "refuse"),
        ("mknodat", [0, 0, 0o020644], "refuse"),
    ],
)
def test_some_calls_depend_on_their_arguments(policy: Policy, call: str, arguments: list[int], answer: str):
    assert policy.decide(policy.numbers[call], [*arguments, 0, 0, 0, 0, 0, 0]) == answer


def test_a_number_that_nobody_knows_is_absent(policy: Policy):
    assert policy.decide(10_000, [0] * 6) == "absent"


def test_a_machine_that_nobody_knows_is_refused_with_those_that_are_known():
    with pytest.raises(OSError, match="known for riscv64, only for x86_64, aarch64"):
        Policy.load("riscv64")
