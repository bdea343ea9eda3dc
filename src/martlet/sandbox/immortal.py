"""Marks what Python only counts in all that this interpreter has, so that it is to be told from what was changed.

Python counts who refers to an object, and how often new code was called. A marked word has a `Mark` in bits of it that
Python leaves alone, and the count in others. What has a marked count of references never ends: it may be forgotten.
For CPython 3.11. Later versions keep both elsewhere, and earlier ones do not run Martlet.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from types import CodeType
from typing import cast


class Mark(IntEnum):
    """What is in a marked word.

    REFERENCES is its upper half, and the lower one counts references. It is no part of an address, and Python's
    collector can still multiply it by four. CALLS is its uppermost quarter, and the next one counts calls.
    """

    REFERENCES = 0x00C0FFEE
    CALLS = 0x4D43


_HALF = 32
_MOST = (1 << _HALF) - 1
_UNUSED_AT = 54
"""Where code has a ``short`` behind the number of its calls: it is used where lines are traced, and set then."""
_ON_THE_HEAP = 1 << 9
"""A flag of types whose names are objects."""
_SMALL_NUMBERS = range(-5, 257)
_CHARACTERS = range(256)
_PARTS_OF_CODE = (
    "co_consts",
    "co_names",
    "co_filename",
    "co_name",
    "co_qualname",
    "co_linetable",
    "co_exceptiontable",
)


def possible() -> bool:
    """Whether counts are where this module takes them to be."""
    known = (sys.implementation.name, *sys.version_info[:2]) == ("cpython", 3, 11)
    return (
        known and sys.maxsize > 1 << _HALF and not hasattr(sys, "gettotalrefcount")
    )  # as builds for debugging have


def mark(visit: Callable[[CodeType], object]) -> None:
    """Marks every object that can be found, and calls ``visit`` with each that is code.

    What it takes for that is little, as it would lie among the others.
    """
    count, new = sys.getrefcount, [*_without_parents(), *gc.get_objects()]
    while new:
        each = new.pop()
        if count(each) > _MOST:
            continue
        ctypes.c_ssize_t.from_address(id(each)).value += Mark.REFERENCES << _HALF
        if type(each) is CodeType:
            visit(each)
            _mark_calls(id(each))
        new += [other for other in gc.get_referents(each) if count(other) <= _MOST]
        new += _hidden(each)


def _mark_calls(code: int) -> None:
    unused = ctypes.c_short.from_address(code + _UNUSED_AT)
    if unused.value == 0:
        unused.value = Mark.CALLS


def _without_parents() -> Iterator[object]:
    """Yields what the interpreter itself has."""
    yield from _SMALL_NUMBERS
    yield from map(chr, _CHARACTERS)
    yield from (bytes([each]) for each in _CHARACTERS)
    yield from (None, True, False, ..., NotImplemented, (), b"", "")


def _hidden(each: object) -> Iterable[object]:
    """Returns what an object has that it does not show the collector."""
    if type(each) is CodeType:
        return [getattr(each, part) for part in _PARTS_OF_CODE]
    if not issubclass(type(each), type):
        return ()
    kind = cast(type, each)
    names = (kind.__name__, kind.__qualname__) if kind.__flags__ & _ON_THE_HEAP else ()
    # The dictionary is shown in something that is made anew for whoever asks.
    return [
        kind.__mro__,
        kind.__bases__,
        *gc.get_referents(kind.__dict__),
        *type.__subclasses__(kind),
        *names,
    ]
