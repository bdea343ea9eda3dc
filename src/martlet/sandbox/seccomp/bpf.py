"""Compiles the policy into a program of classic BPF, the language of seccomp filters.

The kernel runs it on each call that it cannot decide by number alone. A binary search over ranges of numbers with the
same answer leads to that answer, or to the comparison of arguments for the few calls that need it. On a new program the
kernel finds out by itself which numbers are always allowed, and does not run it for those at all (5.11).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from itertools import groupby

from martlet.sandbox.seccomp.policy import Answer, Condition, Policy, Rule

KILL_PROCESS = 0x80000000
USER_NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

X32_BIT = 0x40000000
_NO_NUMBER = 0xFFFFFFFF

LOAD, JUMP, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, AND, RETURN = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06
# Where the parts of a call lie in `struct seccomp_data`. The machines of the policy are little-endian.
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16

_ENFORCED: dict[Answer, int] = {
    "allow": ALLOW,
    "absent": _ERRNO | errno.ENOSYS,
    "refuse": _ERRNO | errno.EPERM,
}
_OBSERVED: dict[Answer, int] = {"allow": ALLOW, "absent": USER_NOTIFY, "refuse": USER_NOTIFY}

Decides = Callable[[str | None], bool]
"""Whether a program decides about the call of a name (None: one whose number the policy does not know), or allows it.

Of two programs that a process has, the stricter answer holds: two that decide about all calls between them are as one.
"""

Instruction = tuple[int, int, int, int]
"""Code, how many to skip if true and if false, and the constant."""


def compile(policy: Policy, *, observed: bool = False, decides: Decides = lambda _: True) -> bytes:  # noqa: A001
    """Returns the program, as an array of ``struct sock_filter``.

    Args:
        policy: what to compile.
        observed: whether calls that are not allowed wait for an observer's answer instead of being refused.
        decides: about which calls.
    """
    actions = _OBSERVED if observed else _ENFORCED
    program = [*_only(policy.architecture.audit), (LOAD, 0, 0, NUMBER)]
    if policy.architecture.has_x32:
        # -1 is no call of x32: it is what a tracer writes to skip one.
        program += [
            (JUMP_IF_AT_LEAST, 0, 2, X32_BIT),
            (JUMP_IF_EQUAL, 1, 0, _NO_NUMBER),
            (RETURN, 0, 0, KILL_PROCESS),
        ]
    program += _search(_ranges(policy, decides), actions)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _only(audit: int) -> list[Instruction]:
    return [(LOAD, 0, 0, ARCHITECTURE), (JUMP_IF_EQUAL, 1, 0, audit), (RETURN, 0, 0, KILL_PROCESS)]


def _ranges(policy: Policy, decides: Decides) -> list[tuple[int, Rule | Answer]]:
    """Returns the first number of each range, and what is decided there."""
    names = {number: name for name, number in policy.numbers.items()}
    decisions = [
        (number, _decision(policy, names.get(number)) if decides(names.get(number)) else "allow")
        for number in range(max(names) + 2)
    ]
    return [next(same) for _, same in groupby(decisions, key=lambda decision: decision[1])]


def _decision(policy: Policy, name: str | None) -> Rule | Answer:
    rule = None if name is None else policy.rules[name]
    return "absent" if rule is None else rule if rule.alternatives else rule.answer


def _search(ranges: Sequence[tuple[int, Rule | Answer]], actions: dict[Answer, int]) -> list[Instruction]:
    """Returns what finds the range of the number that was loaded; it ends with a return on every way."""
    if len(ranges) == 1:
        ((_, decision),) = ranges
        if isinstance(decision, Rule):
            return _compare(decision, actions)
        return [(RETURN, 0, 0, actions[decision])]
    middle = len(ranges) // 2
    lower, upper = _search(ranges[:middle], actions), _search(ranges[middle:], actions)
    # A conditional jump reaches 255 instructions, an unconditional one everything.
    if len(lower) <= 255:
        return [(JUMP_IF_AT_LEAST, len(lower), 0, ranges[middle][0]), *lower, *upper]
    return [(JUMP_IF_AT_LEAST, 0, 1, ranges[middle][0]), (JUMP, 0, 0, len(lower)), *lower, *upper]


def _compare(rule: Rule, actions: dict[Answer, int]) -> list[Instruction]:
    program: list[Instruction] = []
    for conditions in rule.alternatives:
        way: list[Instruction] = [(RETURN, 0, 0, actions[rule.answer])]
        for condition in reversed(conditions):
            way = [*_check(condition, len(way)), *way]
        program += way
    return [*program, (RETURN, 0, 0, actions["refuse"])]


def _check(condition: Condition, beyond: int) -> list[Instruction]:
    """Returns what goes on where the condition holds, and skips ``beyond`` further instructions where not."""
    load: list[Instruction] = [(LOAD, 0, 0, ARGUMENTS + 8 * condition.argument)]
    if condition.mask != 0xFFFFFFFF:
        load.append((AND, 0, 0, condition.mask))
    comparisons: list[Instruction] = []
    for left in reversed(range(len(condition.values))):  # how many comparisons follow
        if condition.negated:
            found, not_found = left + beyond, 0
        else:
            found, not_found = left, 0 if left else beyond
        comparisons.append((JUMP_IF_EQUAL, found, not_found, condition.values[-1 - left]))
    return [*load, *comparisons]
