"""Has code stay as it is: a fork that runs it does not write to it.

Python 3.11 learns about code while it runs it, and keeps what it learns in that code (PEP 659). Code that is called for
the eighth time becomes code that adapts, and an instruction of that which could not adapt counts down until it tries
again. A fork copies a page for each of these counts, and for each code that it happens to call for the eighth time.
"""

from __future__ import annotations

import ctypes
import dis
import opcode
import sys
from collections.abc import Iterator
from types import CodeType

_LENGTH_AT, _CALLS_AT = 16, 52
"""Where code has how many words it is, and a ``short`` with its calls: it becomes code that adapts as they get to 0."""
_CALLS = -64
"""What these are set to: so many calls of a function, or rounds of its loops, are worth a copy."""
_CODE, _ARGUMENT = 0x00FF, 0xFF00
_TRIES = "_ADAPTIVE"


def defer(code: CodeType) -> None:
    """Has code that does not adapt yet do so later. For CPython 3.11 (`immortal.possible`)."""
    calls = _calls(code)
    if calls.value:
        calls.value = _CALLS


def settle(code: CodeType) -> None:
    """Has instructions that could not adapt try no more; they do what they did before. For CPython 3.11."""
    if _calls(code).value:  # nothing of it has been tried
        return
    length = ctypes.c_ssize_t.from_address(id(code) + _LENGTH_AT).value
    words = (ctypes.c_uint16 * length).from_address(id(code) + CodeType.__basicsize__)
    at = 0
    while at < length:
        number = words[at] & _CODE
        # The word behind an instruction that tries is what it counts: nothing, as long as it has not tried.
        if number in _GENERAL and words[at + 1]:
            words[at] = words[at] & _ARGUMENT | _GENERAL[number]
        at += 1 + _WORDS_BEHIND.get(number, 0)


def _calls(code: CodeType) -> ctypes.c_short:
    return ctypes.c_short.from_address(id(code) + _CALLS_AT)


def _instructions() -> Iterator[tuple[int, str, int]]:
    """Yields the instructions that have words behind them: number, name, and the number of what it is adapted from."""
    if sys.version_info[:2] != (3, 11):
        return
    for name, general in opcode.opmap.items():
        if opcode._inline_cache_entries[general]:  # type: ignore[attr-defined]
            for each in (name, *opcode._specializations[name]):  # type: ignore[attr-defined]
                yield dis._all_opmap[each], each, general  # type: ignore[attr-defined]


_WORDS_BEHIND = {
    number: opcode._inline_cache_entries[general]  # type: ignore[attr-defined]
    for number, _, general in _instructions()
}
_GENERAL = {number: general for number, name, general in _instructions() if name.endswith(_TRIES)}
