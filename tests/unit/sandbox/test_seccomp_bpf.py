"""The compiled program decides as the policy does, instruction by instruction as the kernel would run it."""

import errno
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from martlet.sandbox.launcher import is_late
from martlet.sandbox.seccomp import bpf
from martlet.sandbox.seccomp.policy import ARCHITECTURES, Condition, Policy

POLICIES = {machine: Policy.load(machine) for machine in ARCHITECTURES}
PROGRAMS = {machine: bpf.compile(policy) for machine, policy in POLICIES.items()}
ANSWERS = {"allow": bpf.ALLOW, "absent": 0x50000 | errno.ENOSYS, "refuse": 0x50000 | errno.EPERM}
KERNEL_LIMIT = 4096


def run(program: bytes, audit: int, number: int, arguments: list[int]) -> tuple[int, int]:
    """Runs a program on a call. Returns its result, and how many instructions it took."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, audit, 0, *arguments)
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at, taken = 0, 0, 0
    while True:
        code, if_true, if_false, constant = instructions[at]
        at, taken = at + 1, taken + 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, constant)
            case 0x54:
                accumulator &= constant
            case 0x05:
                at += constant
            case 0x15:
                at += if_true if accumulator == constant else if_false
            case 0x35:
                at += if_true if accumulator >= constant else if_false
            case 0x06:
                return constant, taken
            case _:
                raise AssertionError(f"the kernel's filters have no instruction {code:#x}")


def conditions(policy: Policy) -> dict[str, list[Condition]]:
    """The conditions of each call that has some."""
    return {
        name: [condition for each in rule.alternatives for condition in each]
        for name, rule in policy.rules.items()
        if rule.alternatives
    }


@st.composite
def calls(draw: st.DrawFn, policy: Policy) -> tuple[int, list[int]]:
    """Calls whose arguments are often at the edge of what a condition says."""
    word = st.integers(0, 2**64 - 1)
    arguments = draw(st.lists(word, min_size=6, max_size=6))
    conditional = conditions(policy)
    if draw(st.booleans()):
        return draw(st.sampled_from([*policy.numbers.values(), 335, 450, 500, 0x3FFFFFFF])), arguments
    name = draw(st.sampled_from(sorted(conditional)))
    for condition in conditional[name]:
        if draw(st.booleans()):
            near = st.sampled_from([*condition.values, condition.mask, ~condition.mask & 0xFFFFFFFF])
            high, low = (
                draw(st.integers(0, 3)),
                draw(near) | draw(st.sampled_from([0, 0, 1, 0x80000, 0x10000000])),
            )
            arguments[condition.argument] = high << 32 | low
    return policy.numbers[name], arguments


@pytest.mark.parametrize("machine", ARCHITECTURES)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_decides_as_the_policy_does(machine: str, data: st.DataObject):
    policy = POLICIES[machine]
    number, arguments = data.draw(calls(policy))

    result, _ = run(PROGRAMS[machine], policy.architecture.audit, number, arguments)

    assert result == ANSWERS[policy.decide(number, arguments)]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_is_decided_within_a_few_instructions(machine: str):
    policy, limit = POLICIES[machine], 0
    for number in range(600):
        name = policy.name_of(number)
        if name is None or not policy.rules[name].alternatives:
            result, taken = run(PROGRAMS[machine], policy.architecture.audit, number, [0] * 6)
            assert result == ANSWERS[policy.decide(number, [0] * 6)], number
            limit = max(limit, taken)
    assert limit <= 16


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_call_of_another_architecture_ends_the_process(machine: str):
    other = next(each.audit for each in ARCHITECTURES.values() if each.machine != machine)

    for audit in (other, 0x40000003, 0x40000028, 0):
        assert run(PROGRAMS[machine], audit, 0, [0] * 6)[0] == bpf.KILL_PROCESS


@given(st.integers(0x40000000, 0xFFFFFFFE))
@example(0x40000000)
@example(0xFFFFFFFE)
def test_a_call_of_x32_ends_the_process(number: int):
    assert run(PROGRAMS["x86_64"], 0xC000003E, number, [0] * 6)[0] == bpf.KILL_PROCESS


def test_the_number_that_skips_a_call_is_absent():
    assert run(PROGRAMS["x86_64"], 0xC000003E, -1, [0] * 6)[0] == ANSWERS["absent"]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_an_observed_program_allows_the_same_and_asks_about_all_else(machine: str):
    policy, program = POLICIES[machine], bpf.compile(POLICIES[machine], observed=True)
    for name, number in policy.numbers.items():
        allowed = policy.decide(number, [0] * 6) == "allow"
        result, _ = run(program, policy.architecture.audit, number, [0] * 6)
        assert result == (bpf.ALLOW if allowed else bpf.USER_NOTIFY), name


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_it_is_small_and_jumps_forward_only_within_itself(machine: str):
    instructions = list(struct.iter_unpack("=HBBI", PROGRAMS[machine]))

    assert len(instructions) < KERNEL_LIMIT / 4
    for at, (code, if_true, if_false, constant) in enumerate(instructions):
        reach = constant if code == 0x05 else max(if_true, if_false)
        assert code == 0x06 or at + 1 + reach < len(instructions)


HALVES = {
    machine: (
        bpf.compile(policy, decides=lambda call: not is_late(call)),
        bpf.compile(policy, decides=is_late),
    )
    for machine, policy in POLICIES.items()
}


def strictest(program: tuple[bytes, ...], audit: int, number: int, arguments: list[int]) -> int:
    """What the kernel does about a call where several programs answer: the least answer, as signed numbers."""
    answers = [run(each, audit, number, arguments)[0] for each in program]
    return min(answers, key=lambda answer: answer ^ 0x80000000)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_is_filtered_early_and_late_is_together_what_the_policy_says(machine: str, data: st.DataObject):
    policy = POLICIES[machine]
    number, arguments = data.draw(calls(policy))

    assert (
        strictest(HALVES[machine], policy.architecture.audit, number, arguments)
        == ANSWERS[policy.decide(number, arguments)]
    )


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_whatever_number_a_call_has_both_parts_answer_as_one(machine: str):
    audit = POLICIES[machine].architecture.audit
    numbers = [
        *range(700),
        0x3FFFFFFF,
        0x40000000,
        0x40000001,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFE,
        0xFFFFFFFF,
    ]
    for number in numbers:
        for arguments in ([0] * 6, [2**32 - 1] * 6, [2**64 - 1] * 6):
            whole, _ = run(PROGRAMS[machine], audit, number, arguments)
            assert strictest(HALVES[machine], audit, number, arguments) == whole, number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_zygote_and_a_cell_without_code_may_make_only_what_they_need(machine: str):
    policy = POLICIES[machine]
    early, _ = HALVES[machine]
    more = {
        name
        for name, number in policy.numbers.items()
        if run(early, policy.architecture.audit, number, [0] * 6)[0] == bpf.ALLOW
        and policy.decide(number, [0] * 6) != "allow"
    }
    assert more == {"mount", "prctl", "sethostname", "setns", "umount2", "unshare"}
