import dis
import gc
import json
import random
import re
import textwrap
from types import FunctionType
from typing import Any

import pytest

from martlet.sandbox import adaptive, immortal
from tests.alone import alone

pytestmark = pytest.mark.skipif(not immortal.possible(), reason="this Python learns otherwise")
ADAPTED = 8
"""Calls after which Python has code adapt."""


class Open:
    """Has its attributes in a dictionary."""

    def __init__(self) -> None:
        self.value = 1


class Closed:
    """Has them in slots."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 2


def fresh(text: str) -> Any:
    """Returns the function ``f`` of a text, which nobody has called yet."""
    made: dict[str, Any] = {}
    exec(textwrap.dedent(text), made)
    return made["f"]


def text_of(function: FunctionType) -> bytes:
    return function.__code__._co_code_adaptive  # type: ignore[attr-defined, no-any-return]


def names_of(function: FunctionType) -> list[str]:
    return [each.opname for each in dis.get_instructions(function, adaptive=True)]


def unsure() -> Any:
    """Returns a function with an instruction that cannot adapt: no two numbers of these kinds are added quickly."""
    f = fresh("def f(o): return o.value + 1.5")
    for _ in range(ADAPTED):
        f(Open())
    f(Open())
    return f


def test_an_instruction_that_could_not_adapt_counts_until_it_is_settled():
    f = unsure()
    assert "BINARY_OP_ADAPTIVE" in names_of(f)
    before = text_of(f)
    f(Open())
    assert text_of(f) != before

    adaptive.defer(f.__code__)  # which is for code that does not adapt yet
    adaptive.settle(f.__code__)

    settled = text_of(f)
    assert {f(Open()) for _ in range(1000)} == {2.5}
    assert text_of(f) == settled
    assert "BINARY_OP" in names_of(f)


def test_what_has_adapted_stays_adapted():
    f = unsure()
    assert "LOAD_ATTR_INSTANCE_VALUE" in names_of(f)

    adaptive.settle(f.__code__)

    assert "LOAD_ATTR_INSTANCE_VALUE" in names_of(f)
    assert f(Closed()) == 3.5


def test_what_has_not_been_tried_may_still_adapt():
    f = fresh("def f(o, also): return o.value if also else o")
    for _ in range(ADAPTED):
        f(Open(), False)
    adaptive.settle(f.__code__)
    assert "LOAD_ATTR_ADAPTIVE" in names_of(f)

    f(Open(), True)

    assert "LOAD_ATTR_INSTANCE_VALUE" in names_of(f)


@pytest.mark.parametrize("calls", [0, 1, ADAPTED - 1])
def test_code_that_does_not_adapt_yet_does_so_when_it_is_called_often(calls: int):
    f = fresh("def f(o): return o.value")
    for _ in range(calls):
        f(Open())
    before = text_of(f)

    adaptive.defer(f.__code__)

    for _ in range(5 * ADAPTED):
        f(Open())
    assert text_of(f) == before
    for _ in range(5 * ADAPTED):
        f(Open())
    assert "LOAD_ATTR_INSTANCE_VALUE" in names_of(f)


def test_rounds_of_a_loop_count_as_calls():
    f = fresh("""
        def f(o, rounds):
            for _ in range(rounds):
                o.value += 1
            return o.value
    """)
    adaptive.defer(f.__code__)

    assert f(Open(), 1000) == 1001

    assert "LOAD_ATTR_INSTANCE_VALUE" in names_of(f)


def test_long_arguments_and_instructions_side_by_side_are_kept():
    names = [f"n{number}" for number in range(300)]
    f = fresh(f"""
        class Many:
            def __init__(self):
                {"; ".join(f"self.{name} = {number}" for number, name in enumerate(names))}

        def f(o=Many(), more=0.5):
            return [{", ".join(f"o.{name} + more" for name in names)}]
    """)
    expected = f()
    for settled in range(3):
        for _ in range(3 * ADAPTED + settled):
            f()
        adaptive.settle(f.__code__)
        assert f() == expected
    assert f(more=2) == [number + 2 for number in range(300)]


def test_all_code_does_what_it_did():
    """What all that is loaded does on the way is done by code that has been settled, at any point of what it learns."""

    def work() -> Any:
        order = random.Random(7)
        document = {
            str(each): [each, each / 7, None, {"x": str(each)}] for each in order.sample(range(99), 40)
        }
        written = json.dumps(document, indent=order.choice([None, 2]), sort_keys=True)
        found = re.compile(r'"(\d+)": (\[|\d)').findall(written)
        return (
            written,
            found,
            textwrap.fill(written, 60),
            sorted(document, key=lambda each: document[each][1]),
        )

    def run() -> bool:
        expected = repr(work())
        for _ in range(20):
            for each in gc.get_objects():
                if type(each) is FunctionType:
                    adaptive.settle(each.__code__)
                    adaptive.defer(each.__code__)
            if repr(work()) != expected:
                return False
            re.purge()
        return True

    assert alone(run)
