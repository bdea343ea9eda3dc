"""Numbers by which Python knows functions and classes again: given ahead, in the process that cells are forked from.

A function has one since it was first called by code that has learnt whom it calls, a class since something was first
looked up in it. A cell would be the first for many that it only borrows, and copy the memory of each to write a number.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress
from itertools import count
from types import FunctionType

_FUNCTIONS_AT = 128
"""Where a function has its number."""
_numbers = count(1 << 31)
"""Python counts up from 1. No number is given twice: who has learnt whom it calls goes by that alone."""
_SMALL = "__getitem__"
"""Functions of this name, where Python notes the number in 16 bits, get none."""
_NAME = "__martlet__"


def give() -> None:
    """Gives numbers to all functions and classes that there are. For CPython 3.11, like `immortal` in the sandbox."""
    if (sys.implementation.name, *sys.version_info[:2]) != ("cpython", 3, 11) or hasattr(
        sys, "gettotalrefcount"
    ):
        return
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__name__ != _SMALL:
            version = ctypes.c_uint32.from_address(id(each) + _FUNCTIONS_AT)
            if version.value == 0:
                version.value = next(_numbers)
    for kind in _classes():
        with suppress(AttributeError):
            type.__getattribute__(kind, _NAME)


def _classes() -> set[type]:
    found: set[type] = set()
    new: list[type] = [object]
    while new:
        kind = new.pop()
        if kind not in found:
            found.add(kind)
            new += type.__subclasses__(kind)
    return found
