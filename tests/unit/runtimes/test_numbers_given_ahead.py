"""What is called, or looked up in, for the first time keeps the number that it was given ahead."""

from __future__ import annotations

import ctypes
import gc
import weakref
from types import FunctionType
from typing import Any

import pytest

from martlet.runtimes.python._martlet_python import versions
from martlet.sandbox import immortal
from tests.alone import alone

pytestmark = pytest.mark.skipif(not immortal.possible(), reason="this Python keeps these numbers elsewhere")
OF_A_CLASS = 1 << 19
"""The flag of a class that has its number."""
OFTEN = 200


class Thing:
    """What nobody has looked anything up in."""

    def name(self) -> str:
        return "a thing"


class Box:
    """What can be subscripted."""

    def __getitem__(self, number: int) -> int:
        return number


def called(number: int) -> int:
    return number + 1


def calls(often: int) -> int:
    total = 0
    for _ in range(often):
        total = called(total)
    return total


def bytes_of(function: FunctionType) -> bytes:
    """Returns the memory of a function, but the count of references."""
    return ctypes.string_at(id(function) + 8, function.__sizeof__() - 8)


def functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if type(each) is FunctionType]


def test_who_learns_whom_it_calls_writes_nothing_to_that():
    def run() -> list[Any]:
        versions.give()
        before = bytes_of(called)
        result = calls(OFTEN)
        return [bytes_of(called) == before, result]

    assert alone(run) == [True, OFTEN]


def test_it_would_otherwise():
    def run() -> bool:
        made: dict[str, Any] = {}
        exec("def new(n): return n\ndef calls(often):\n    for n in range(often): new(n)", made)
        before = bytes_of(made["new"])
        made["calls"](OFTEN)
        return bytes_of(made["new"]) == before

    assert alone(run) is False


def test_no_two_functions_have_the_same():
    def run() -> list[int]:
        calls(OFTEN)  # this has one of Python's own
        versions.give()
        found = [each for each in functions() if each.__name__ != "__getitem__"] + [lambda: "made later"]
        versions.give()
        numbers = [int.from_bytes(bytes_of(each)[120:124], "little") for each in found]
        return [len(numbers), len({*numbers} - {0})]

    made, different = alone(run)
    assert made == different > 100


def test_what_is_subscripted_gets_one_that_python_can_note_down():
    def run() -> int:
        versions.give()
        box = Box()
        assert sum(box[number] for number in range(OFTEN)) == sum(range(OFTEN))
        return int.from_bytes(bytes_of(Box.__getitem__)[120:124], "little")

    assert 0 < alone(run) < 1 << 16


def test_a_function_that_becomes_another_is_known_as_that():
    def run() -> list[int]:
        versions.give()
        before = calls(OFTEN)
        called.__code__ = (lambda number: number + 2).__code__
        called.__defaults__ = ()
        return [before, calls(OFTEN)]

    assert alone(run) == [OFTEN, 2 * OFTEN]


def test_classes_have_theirs_too_also_those_whose_things_pretend_to_be_others():
    def run() -> list[Any]:
        class Unlooked:
            pass

        thing = Thing()
        proxies = [weakref.proxy(Unlooked), weakref.proxy(thing)]
        versions.give()
        flags = [kind.__flags__ & OF_A_CLASS for kind in (Unlooked, Thing, type(proxies[0]))]
        return [len(proxies), sum(map(bool, flags)), thing.name()]

    assert alone(run) == [2, 3, "a thing"]
