"""Where things lie in the memory that cells share.

A fork shares its memory until it writes to it, and then copies a page. Whoever calls a function writes to its code, for
that counts who refers to it; whoever makes a thing, to the place where it puts it. What is called lies among all that
was loaded and is not, and the free places are what was left between: so each costs a fork about a page.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType

from . import versions

_COPIES = 8
"""How often code is copied: the first copies fill the gaps that memory has, the last ones lie side by side."""
_ROUNDS = 12
"""After so many calls, Python has learnt what it learns about code, and writes no more of that to it."""
_PAGE = 4096
_SIZES = range(48, 513, 16)
"""Of the things that Python's allocator keeps apart by their size, in bytes."""
_MOST = 4096
"""How many gaps of a size are filled at most."""
_kept: list[object] = []
"""What is in the places that are not to be free again."""


def settle(practice: Callable[[], object]) -> None:
    """Has what ``practice`` calls, and what is made from here on, lie side by side.

    A name that a fork looks up in a class is noted by Python in place of another one, whose memory is written to as
    well: so no other names are noted than those of the practice.
    """
    gather(practice)
    versions.give()
    sys._clear_type_cache()
    for _ in range(_ROUNDS):
        practice()
    gc.collect()
    _kept.append([_fillers(size) for size in _SIZES])


def gather(practice: Callable[[], object]) -> None:
    """Gives the functions that ``practice`` calls code that lies side by side, and is otherwise the same.

    What Python has learnt about that code is lost: it learns that again in the next calls.
    """
    called = _called_by(practice)
    functions = [
        each for each in gc.get_objects() if type(each) is FunctionType and id(each.__code__) in called
    ]
    code = {id(each.__code__): each.__code__ for each in functions}
    generations = [_copied(code, called) for _ in range(_COPIES)]
    for function in functions:
        function.__code__ = generations[-1][id(function.__code__)]
    _kept.append(called)


def _called_by(practice: Callable[[], object]) -> dict[int, CodeType]:
    called: dict[int, CodeType] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            called[id(frame.f_code)] = frame.f_code

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        practice()
    finally:
        sys.setprofile(before)
    return called


def _copied(code: dict[int, CodeType], called: dict[int, CodeType]) -> dict[int, CodeType]:
    """Returns copies of ``code``, and of what it has inside that is called, by the ids of the originals."""
    copies: dict[int, CodeType] = {}

    def copy(original: CodeType) -> CodeType:
        if id(original) not in copies:
            inner = tuple(copy(each) if id(each) in called else each for each in original.co_consts)
            copies[id(original)] = original.replace(co_consts=inner)
        return copies[id(original)]

    for original in code.values():
        copy(original)
    return copies


def _fillers(size: int) -> list[bytes]:
    """Returns what fills the gaps of that size, up to where a page of them is free in a row."""
    fillers, row = [bytes(size - sys.getsizeof(b""))], 0
    while row < _PAGE // size and len(fillers) < _MOST:
        fillers.append(bytes(size - sys.getsizeof(b"")))
        row = row + 1 if id(fillers[-1]) - id(fillers[-2]) == size else 0
    return fillers[: len(fillers) - row]
