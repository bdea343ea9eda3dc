from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FunctionType
from typing import Any

import pytest

from martlet.runtimes.python._martlet_python import layout

PAGE = 4096
MANY = 300


class Counter:
    step = 2

    def __init__(self, start: int) -> None:
        self.value = start

    @property
    def doubled(self) -> int:
        return self.value * 2

    @classmethod
    def fresh(cls) -> Counter:
        return cls(cls.step)


def defaults(a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


def closure(n: int) -> Callable[[int], int]:
    return lambda m: n + m


ADD_TEN = closure(10)


def pieces(n: int) -> Iterator[int]:
    yield from [i * i for i in range(n)]


def fail() -> None:
    raise ValueError("as it should")


def practice() -> list[Any]:
    return [
        Counter(3).doubled,
        Counter.fresh().value,
        defaults(1),
        defaults(1, c=5),
        closure(1)(2),
        ADD_TEN(1),
        [*pieces(4)],
        _told(),
    ]


def never_called() -> None:
    pass


def _told() -> str:
    try:
        fail()
    except ValueError:
        return traceback.format_exc()
    return ""


def test_what_is_gathered_does_what_it_did_and_says_where_it_was_written() -> None:
    before, code = practice(), fail.__code__

    layout.gather(practice)

    assert practice() == before
    assert "in fail\n" in before[-1]
    assert fail.__code__ is not code
    assert fail.__code__ == code
    assert [*fail.__code__.co_positions()] == [*code.co_positions()]


def test_what_is_not_called_stays_where_it_is() -> None:
    code = never_called.__code__

    layout.gather(practice)

    assert never_called.__code__ is code


def test_what_was_loaded_among_other_code_lies_side_by_side() -> None:
    called, others = _scattered()

    layout.gather(lambda: [function() for function in called])

    code = [function.__code__ for function in called]
    # Each is as long as the others: but for where a pool of the allocator ends, they fill their pages.
    assert len(_pages(code)) <= 2 * sum(map(sys.getsizeof, code)) // PAGE
    assert len(others) > MANY


def test_what_is_made_when_all_is_settled_lies_side_by_side() -> None:
    size = 400
    made = [bytes(size) for _ in range(20 * MANY)]
    gaps = _pages(made[::20])
    del made[::20]
    assert len(gaps) > MANY // 2

    layout.settle(practice)

    new = [bytes(size) for _ in range(MANY)]
    assert len(_pages(new)) <= 2 * sum(map(sys.getsizeof, new)) // PAGE


def test_a_profiler_is_there_again_after_code_was_gathered() -> None:
    def profiler(*_: object) -> None:
        pass

    sys.setprofile(profiler)
    try:
        layout.gather(practice)
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_what_raises_as_it_is_called_is_heard_of_and_leaves_no_profiler() -> None:
    with pytest.raises(ValueError, match="as it should"):
        layout.gather(fail)

    assert sys.getprofile() is None


def _scattered() -> tuple[list[FunctionType], list[FunctionType]]:
    """Functions that are called, and the many between them that are not."""
    made = []
    for number in range(20 * MANY):
        space: dict[str, Any] = {}
        exec(f"def f():\n    return {number}, {number + 1}, {number + 2}", space)
        made.append(space["f"])
    called = made[::20]
    assert len(_pages([function.__code__ for function in called])) > MANY // 2
    return called, made


def _pages(things: Sequence[object]) -> set[int]:
    return {id(each) // PAGE for each in things}
