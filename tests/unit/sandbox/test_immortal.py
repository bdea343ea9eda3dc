import ctypes
import gc
import sys
from typing import Any

import pytest

from martlet.sandbox import immortal
from tests.alone import alone

pytestmark = pytest.mark.skipif(not immortal.possible(), reason="this Python keeps its counts elsewhere")
MARKED = immortal.Mark.REFERENCES << 32


class Thing:
    """One of many."""

    def method(self) -> str:
        return "hello"


class Ending:
    """Something that counts how many of its kind have ended."""

    ended = 0

    def __del__(self) -> None:
        type(self).ended += 1


def mark() -> None:
    immortal.mark([].append)


def is_marked(thing: object) -> bool:
    return sys.getrefcount(thing) >> 32 == immortal.Mark.REFERENCES


def test_all_that_can_be_found_is_marked():
    def run() -> list[bool]:
        thing = Thing()
        thing.__dict__["within"] = ("a tuple", b"bytes", 2.5, 10**30)
        mark()
        found = [thing, thing.__dict__, *thing.__dict__["within"], Thing, Thing.method, Thing.method.__code__]
        found += [Thing.method.__code__.co_consts, None, True, 7, "a", gc, gc.collect, object, object.__new__]
        found += [Thing.__mro__, Thing.__name__, Thing.__qualname__, sys.modules, is_marked.__globals__]
        return [is_marked(each) for each in found]

    assert set(alone(run)) == {True}


def test_what_is_made_later_is_not_marked_and_ends():
    def run() -> list[Any]:
        mark()
        made = Ending()
        marked = is_marked(made)
        del made
        ring: list[Any] = [Ending()]
        ring.append(ring)
        del ring
        gc.collect()
        return [marked, Ending.ended]

    assert alone(run) == [False, 2]


def test_what_is_marked_never_ends_and_is_otherwise_as_it_was():
    def run() -> list[Any]:
        thing = Ending()
        address = id(thing)
        mark()
        before = sys.getrefcount(thing)
        held = [thing] * 5
        more = sys.getrefcount(thing)
        del held, thing
        gc.collect()
        left = ctypes.c_ssize_t.from_address(address).value
        return [before > MARKED, more - before, left >= MARKED, Ending.ended]

    assert alone(run) == [True, 5, True, 0]


def test_code_is_called_as_before():
    """It is quickened after some calls, which its marked word counts; line numbers are found, and lines traced."""

    def run() -> list[Any]:
        made: dict[str, Any] = {}
        exec(
            "def counted(n):\n    total = 0\n    for each in range(n):\n        total += each\n    return total",
            made,
        )
        counted = made["counted"]
        mark()
        results = {counted(10) for _ in range(100)}
        lines = []

        def trace(frame: Any, event: str, _: Any) -> Any:
            if frame.f_code is counted.__code__:
                lines.append(frame.f_lineno)
            return trace

        sys.settrace(trace)
        counted(1)
        sys.settrace(None)
        return [sorted(results), sorted({*lines}), [*counted.__code__.co_lines()][-1][2]]

    assert alone(run) == [[45], [1, 2, 3, 4, 5], 5]
