"""The policy as data: which call may be made with which arguments, how another is answered, and why."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_FOLDER = Path(__file__).parent
_WORD = 0xFFFFFFFF

Answer = Literal["allow", "absent", "refuse"]


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if the argument, after ``mask``, is one of ``values``, or, with ``negated``, none of them."""

    argument: int
    mask: int
    values: tuple[int, ...]
    negated: bool

    def holds(self, arguments: Sequence[int]) -> bool:
        """Whether it does for these arguments, of which the lower 32 bits count."""
        return ((arguments[self.argument] & self.mask) in self.values) is not self.negated


@dataclass(frozen=True, slots=True)
class Rule:
    """What is decided about one call.

    Attributes:
        answer: ``allow``, ``absent`` (ENOSYS) or ``refuse`` (EPERM).
        reason: why; for a call that is allowed on conditions, why it is refused otherwise.
        alternatives: where the call is allowed on conditions: sets of them, of which one must hold.
    """

    answer: Answer
    reason: str
    alternatives: tuple[tuple[Condition, ...], ...] = ()

    def decide(self, arguments: Sequence[int]) -> Answer:
        """Returns the answer to a call with these arguments."""
        if self.alternatives and not any(all(c.holds(arguments) for c in each) for each in self.alternatives):
            return "refuse"
        return self.answer


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of machine: what ``uname -m`` calls it, and its number in the audit framework and in filters."""

    machine: str
    audit: int
    has_x32: bool = False


ARCHITECTURES = {
    each.machine: each
    for each in (Architecture("x86_64", 0xC000003E, has_x32=True), Architecture("aarch64", 0xC00000B7))
}


@dataclass(frozen=True, slots=True, order=True)
class Shown:
    """An argument that is worth showing; ``kind`` says which words, or ``number``, or ``path``: a name in memory."""

    argument: int
    kind: str
    mask: int = _WORD


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one architecture.

    Attributes:
        architecture: which.
        numbers: the number of each call that the architecture has.
        rules: what is decided about each of them, by name.
        words: names of values of arguments, by kind.
        shown: the arguments worth showing of a refused call.
    """

    architecture: Architecture
    numbers: Mapping[str, int]
    rules: Mapping[str, Rule]
    words: Mapping[str, Mapping[str, int]]
    shown: Mapping[str, Sequence[Shown]]

    @classmethod
    def load(cls, machine: str | None = None) -> Policy:
        """Reads the policy for a kind of machine; by default this one.

        Raises:
            OSError: the policy knows no such machine.
        """
        machine = machine or os.uname().machine
        if machine not in ARCHITECTURES:
            raise OSError(
                f"no system call numbers are known for {machine}, only for {', '.join(ARCHITECTURES)}"
            )
        numbers = _numbers(machine)
        document = tomllib.loads((_FOLDER / "policy.toml").read_text())
        words: dict[str, dict[str, int]] = document["words"]
        rules = _rules(document, words)
        return cls(
            architecture=ARCHITECTURES[machine],
            numbers=numbers,
            rules={name: rules[name] for name in numbers},
            words=words,
            shown=_shown(document),
        )

    def decide(self, number: int, arguments: Sequence[int]) -> Answer:
        """Returns the answer to the call with this number and these arguments."""
        name = self.name_of(number)
        return "absent" if name is None else self.rules[name].decide(arguments)

    def name_of(self, number: int) -> str | None:
        """Returns the name of a call, or None where the policy does not know its number."""
        return next((name for name, known in self.numbers.items() if known == number), None)


def _numbers(machine: str) -> dict[str, int]:
    lines = [line for line in (_FOLDER / "numbers.tsv").read_text().splitlines() if not line.startswith("#")]
    column = lines[0].split("\t").index(machine)
    rows = (line.split("\t") for line in lines[1:])
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _rules(document: dict[str, Any], words: Mapping[str, Mapping[str, int]]) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    answers: tuple[Answer, ...] = ("allow", "absent", "refuse")
    for answer in answers:
        for entry in document[answer]:
            where = tuple(_condition(words[given["words"]], given) for given in entry.get("where", ()))
            reason = entry.get("otherwise", entry["reason"])
            for call in entry["calls"]:
                known = rules.get(call)
                if known is None:
                    rules[call] = Rule(answer, reason, (where,) if where else ())
                elif where and known.alternatives:
                    rules[call] = Rule(answer, known.reason, (*known.alternatives, where))
                else:
                    raise ValueError(f"policy.toml decides {call} more than once")
    return rules


def _shown(document: dict[str, Any]) -> dict[str, list[Shown]]:
    """Returns what the policy says is shown, and for calls of which it does not, what decides about them."""
    decisive: dict[str, set[Shown]] = {}
    for entry in document["allow"]:
        for given in entry.get("where", ()):
            for call in entry["calls"]:
                shown = Shown(given["argument"], given["words"], given.get("mask", _WORD))
                decisive.setdefault(call, set()).add(shown)
    given = {call: {Shown(*each) for each in entries} for call, entries in document["shown"].items()}
    return {call: sorted(shown) for call, shown in (decisive | given).items()}


def _condition(words: Mapping[str, int], given: dict[str, Any]) -> Condition:
    match given:
        case {"argument": argument, "without": bits}:
            return Condition(argument, _any_of(words[bit] for bit in bits), (0,), negated=False)
        case {"argument": argument, "is": names}:
            return Condition(argument, given.get("mask", _WORD), tuple(words[name] for name in names), False)
        case {"argument": argument, "is_not": names}:
            return Condition(argument, given.get("mask", _WORD), tuple(words[name] for name in names), True)
        case _:
            raise ValueError(f"policy.toml has a condition that says nothing: {given}")


def _any_of(bits: Iterable[int]) -> int:
    mask = 0
    for bit in bits:
        mask |= bit
    return mask
