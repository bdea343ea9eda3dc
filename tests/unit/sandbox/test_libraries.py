import ctypes
import os
from typing import Any

from martlet.sandbox import libraries, mappings
from tests.alone import alone


def lines() -> list[list[str]]:
    """Returns the lines of this process's map of its memory, split."""
    with open("/proc/self/maps") as maps:
        return [line.split(maxsplit=5) for line in maps]


def constants() -> dict[int, bytes]:
    """Returns what this process has of files and may read only, page by page, by address."""
    found = {}
    for range_, mode, _, _, inode, *_ in lines():
        begin, end = (int(each, 16) for each in range_.split("-"))
        if mode == "r--p" and inode != "0":
            found |= {at: ctypes.string_at(at, 4096) for at in range(begin, end, 4096)}
    return found


def written_to() -> int:
    """Returns how many mappings of files that may be read only have pages that are this process's own."""
    return len([*libraries._written_once([*mappings.read()])])


def code() -> tuple[int, int]:
    """Reads all of the largest mapping with code. Returns where it is and how many bytes it has."""
    largest = max((each for each in mappings.read() if each.mode == "r-xp"), key=lambda each: each.size)
    return largest.begin, len(ctypes.string_at(largest.begin, largest.size))


def in_use(begin: int) -> int:
    """Returns the bytes that this process has tables of, of what lies there."""
    return next(each.resident for each in mappings.read() if each.begin == begin)


def settled(work: Any) -> Any:
    """Returns what ``work`` returns in a process whose libraries are settled."""

    def settle() -> Any:
        libraries.settle()
        return work()

    return alone(settle)


def test_what_the_loader_wrote_lies_in_a_file_with_the_constants_beside_it():
    def compare() -> tuple[int, int, bool, int]:
        before, known = len(lines()), constants()
        libraries.settle()
        return before, len(lines()), known == constants(), written_to()

    before, after, same, left = alone(compare)

    assert after < before - 10
    assert same
    assert left == 0


def test_libraries_work_on_and_others_can_be_loaded():
    def use() -> list[Any]:
        import _lsprof

        return [
            ctypes.CDLL("libresolv.so.2").ns_makecanon is not None,
            ctypes.CDLL(None).abs(-3),
            _lsprof.__name__,
        ]

    assert settled(use) == [True, 3, "_lsprof"]


def test_what_was_settled_is_read_only_and_nobodys_file():
    def modes() -> list[str]:
        return [mode for _, mode, *_, path in (each for each in lines() if len(each) == 6) if "memfd" in path]

    def open_files() -> list[str]:
        return [os.path.realpath(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd")]

    assert set(settled(modes)) == {"r--p"}
    assert not [each for each in settled(open_files) if "libraries" in each]


def test_a_fork_begins_with_the_tables_of_what_is_used_much():
    def with_tables() -> tuple[int, int]:
        begin, size = code()
        libraries.hand_down()
        return size, alone(in_use, begin)

    def without() -> tuple[int, int]:
        begin, size = code()
        return size, alone(in_use, begin)

    size, tables = alone(with_tables)
    assert tables == size
    size, tables = alone(without)
    assert tables < size
