import ctypes
import errno
import gc
import mmap
import os
import signal
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any, BinaryIO

import pytest

from martlet.runtimes.python._martlet_python.forkable import descriptors
from martlet.sandbox import immortal, machine_code
from martlet.sandbox.bedrock import Bedrock
from tests.alone import alone
from tests.processes import owned

pytestmark = pytest.mark.skipif(
    not (machine_code.possible() and immortal.possible()), reason="this machine or Python has no code for it"
)
PAGE = 4096
MOSTLY = 50
"""Percent of the pages that things lie in: some share a page with what a fork writes to, the more the longer the
process that it is forked from has run."""
PR_GET_DUMPABLE, MADV_REMOVE = 3, 9
MANY = 20_000
PATIENCE = 60
CALLS = 10
"""More than Python wants before it learns about code."""


def nothing() -> None:
    """Makes nothing ahead."""


def in_a_fork(
    work: Callable[..., Any],
    *,
    before: Callable[[], Any] = nothing,
    marked: bool = True,
    times: int = 1,
    learnt: bool = False,
) -> Any:
    """Returns what ``work`` returns in a fork of a process whose memory was laid, given the bedrock and what ``before``
    made there."""

    def lay() -> Any:
        made = before()
        bedrock = Bedrock()
        if marked:
            bedrock.mark()
        gc.freeze()
        for _ in range(times):
            bedrock.lay(learnt=learnt)

        def run() -> Any:
            signal.alarm(PATIENCE)  # the end of a fork that rests and should not
            return work(bedrock, made)

        return alone(run)

    return alone(lay)


def rest(bedrock: Bedrock) -> None:
    """Rests for a moment."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    bedrock.rest(reader)
    os.close(reader)
    os.close(writer)


def pages_of(things: list[Any]) -> set[int]:
    """Looks at things, and returns the addresses of the pages that they begin in."""
    return {id(thing) // PAGE * PAGE for thing in things}


def own(pages: set[int], entries: BinaryIO | None = None) -> int:
    """Returns how many of these pages the process has for itself, in percent.

    Args:
        pages: their addresses.
        entries: what says what they are, where it is open already.
    """
    return len(pages & owned(os.getpid(), entries)) * 100 // len(pages)


def mappings() -> list[list[str]]:
    """Returns the lines of this process's map of its memory, split."""
    with open("/proc/self/maps") as maps:
        return [line.split(maxsplit=5) for line in maps]


def ends(mapping: list[str]) -> tuple[int, int]:
    begin, end = mapping[0].split("-")
    return int(begin, 16), int(end, 16)


def names() -> list[str]:
    return [f"name {number}" for number in range(MANY)]


def looked_at(things: list[Any]) -> int:
    return sum(1 for thing in things if thing)


@pytest.mark.parametrize("times", [1, 3])
def test_what_a_fork_only_looked_at_is_given_back(times: int):
    def work(bedrock: Bedrock, things: list[str]) -> tuple[int, int, bool]:
        pages = pages_of(things)
        before = own(pages)
        rest(bedrock)
        return before, own(pages), things == names()

    before, after, same = in_a_fork(work, before=names, marked=False, times=times)

    assert before == 100
    assert after < MOSTLY
    assert same


def test_what_a_fork_changed_is_as_it_left_it():
    def work(bedrock: Bedrock, made: tuple[bytearray, dict[int, str], list[str]]) -> list[Any]:
        bytes_, numbers, things = made
        bytes_[::PAGE] = b"y" * len(bytes_[::PAGE])
        numbers.update({1: "one", 50_000: "new"})
        del things[100:]
        mine = [object() for _ in range(1000)]
        rest(bedrock)
        looked_at(things)
        rest(bedrock)
        return [
            bytes_.count(b"y"),
            len(bytes_),
            numbers[1],
            numbers[50_000],
            len(numbers),
            len(things),
            len(mine),
        ]

    found = in_a_fork(work, before=lambda: (bytearray(64 * PAGE), dict.fromkeys(range(5000), "old"), names()))

    assert found == [64, 64 * PAGE, "one", "new", 5001, 100, 1000]


COUNTED = immortal.Mark.CALLS << 48


@pytest.mark.parametrize(
    ("was", "becomes"),
    [(7, 5 << 32 | 7), (5 << 32 | 7, 7), (COUNTED | 7, COUNTED | 8), (COUNTED | 7, COUNTED | 5 << 32 | 8)],
)
def test_a_number_is_no_count_if_it_only_looks_like_one(was: int, becomes: int):
    def work(bedrock: Bedrock, numbers: "array[int]") -> list[int]:
        for place in range(0, len(numbers), PAGE // 8):
            numbers[place] = becomes
        rest(bedrock)
        return sorted({*numbers[:: PAGE // 8]})

    assert in_a_fork(work, before=lambda: array("Q", [was] * 16 * PAGE)) == [becomes]


@pytest.mark.parametrize("marked", [True, False])
def test_references_that_a_fork_holds_cost_no_page_where_counts_are_marked(marked: bool):
    def work(bedrock: Bedrock, things: list[str]) -> tuple[int, bool]:
        held, pages = [[*things] for _ in range(3)], pages_of(things)
        rest(bedrock)
        kept = own(pages)
        right = all(each == things for each in held)
        del held
        gc.collect()
        rest(bedrock)
        return kept, right and things == names()

    kept, right = in_a_fork(work, before=names, marked=marked)

    assert right
    assert kept < MOSTLY if marked else kept == 100


def test_the_stack_that_is_not_used_any_more_is_given_back():
    def stack() -> set[int]:
        (place,) = [ends(each) for each in mappings() if each[-1].strip() == "[stack]"]
        return {page for page in owned(os.getpid()) if place[0] <= page < place[1]}

    def work(bedrock: Bedrock, _: object) -> tuple[int, int]:
        def deep(left: int) -> int:
            return left and next(map(deep, [left - 1])) + 1

        assert deep(200) == 200
        before = len(stack())
        rest(bedrock)
        return before, len(stack())

    before, after = in_a_fork(work)

    assert before > 20
    assert after < before / 2


def functions() -> list[Callable[[int], int]]:
    made: dict[str, Any] = {}
    for number in range(1000):
        body = "; ".join(f"a{each} = n + {each + number}" for each in range(8))
        exec(f"def f{number}(n):\n    {body}\n    return a0 + sum(range(n))", made)
    return [made[f"f{number}"] for number in range(1000)]


def test_code_that_was_called_a_few_times_costs_no_page_and_may_be_called_more():
    def work(bedrock: Bedrock, called: list[Callable[[int], int]]) -> tuple[int, int, bool]:
        for function in called:
            function(1)
        pages = pages_of([function.__code__ for function in called])
        before = own(pages)
        rest(bedrock)
        after, right = own(pages), True
        for _ in range(40):
            right = right and [f(4) for f in called] == [number + 10 for number in range(1000)]
            rest(bedrock)
        return before, after, right

    before, after, right = in_a_fork(work, before=functions)

    assert before == 100
    assert after < MOSTLY
    assert right


def test_a_process_with_another_thread_keeps_what_it_has_and_does_not_wait():
    def work(bedrock: Bedrock, things: list[str]) -> int:
        over = threading.Event()
        other = threading.Thread(target=over.wait)
        other.start()
        pages = pages_of(things)
        bedrock.rest(os.pipe()[0])
        over.set()
        other.join()
        return own(pages)

    assert in_a_fork(work, before=names) == 100


def test_it_waits_until_there_is_something_to_read():
    def work(bedrock: Bedrock, _: object) -> tuple[bytes, bool]:
        reader, writer = os.pipe()
        began = time.monotonic()
        if os.fork() == 0:
            time.sleep(0.3)
            os.write(writer, b"hello")
            os._exit(0)
        bedrock.rest(reader)
        return os.read(reader, 5).decode(), time.monotonic() - began >= 0.3

    assert in_a_fork(work) == ["hello", True]


def test_a_signal_ends_the_rest_and_is_handled():
    def work(bedrock: Bedrock, _: object) -> list[Any]:
        heard = []
        signal.signal(signal.SIGTERM, lambda number, _: heard.append(int(number)))
        signal.signal(signal.SIGALRM, lambda number, _: heard.append(int(number)))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        os.kill(os.getpid(), signal.SIGUSR1)  # which does not end it, as it is blocked
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        bedrock.rest(os.pipe()[0])
        blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        return [heard, blocked]

    assert in_a_fork(work) == [[signal.SIGALRM], [signal.SIGUSR1]]


def test_memory_that_somebody_has_put_in_the_same_place_stays():
    def work(bedrock: Bedrock, room: ctypes.Array[ctypes.c_char]) -> list[bool]:
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        first = -(-ctypes.addressof(room) // PAGE) * PAGE
        was = ctypes.string_at(first, 8 * PAGE)
        anew = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
        assert libc.mmap(first, 8 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, anew, -1, 0) == first
        ctypes.memmove(first, was, 8 * PAGE)
        rest(bedrock)
        return [was == ctypes.string_at(first, 8 * PAGE), b"\1" * PAGE in was]

    found = in_a_fork(work, before=lambda: ctypes.create_string_buffer(b"\1" * 10 * PAGE, 10 * PAGE))

    assert found == [True, True]


def test_a_fork_cannot_change_what_others_go_back_to():
    """Neither where the file is mapped for reading, nor where it is mapped in the place of memory."""

    def work(bedrock: Bedrock, things: list[str]) -> list[Any]:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        laid = [each for each in mappings() if "bedrock" in each[-1]]
        shared = [each for each in laid if each[1].endswith("s")]
        tried = []
        for mapping in (shared[0], next(each for each in laid if each[1] == "rw-p")):
            begin, end = ends(mapping)
            tried += [libc.madvise(begin, end - begin, MADV_REMOVE), ctypes.get_errno()]
        begin, end = ends(shared[0])
        tried += [libc.mprotect(begin, end - begin, mmap.PROT_READ | mmap.PROT_WRITE), ctypes.get_errno()]
        open_ones = [path for path in descriptors().values() if "bedrock" in path]
        return [len(shared), shared[0][1], tried, open_ones]

    refused = [-1, errno.EACCES]
    assert in_a_fork(work, before=names) == [1, "r--s", refused * 3, []]


def test_what_the_kernel_writes_to_is_not_the_files():
    def work(bedrock: Bedrock, _: object) -> list[Any]:
        storage = machine_code.thread_storage()
        of_thread = [each for each in mappings() if ends(each)[0] <= storage < ends(each)[1]]
        stacks = [each for each in mappings() if each[-1].strip() == "[stack]"]
        return [len(of_thread), "bedrock" in of_thread[0][-1], len(stacks)]

    assert in_a_fork(work) == [1, False, 1]


root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root")


@root
def test_nobody_can_write_to_the_file():
    def work(bedrock: Bedrock, _: object) -> str:
        shared = next(each for each in mappings() if "bedrock" in each[-1] and each[1].endswith("s"))
        file = os.open(f"/proc/self/map_files/{shared[0]}", os.O_RDWR)
        try:
            os.write(file, b"x")
        except OSError as error:
            return error.strerror
        return "written"

    assert in_a_fork(work) == os.strerror(errno.EPERM)


@root
def test_memory_that_was_never_written_to_takes_no_room_in_the_file():
    def work(bedrock: Bedrock, room: mmap.mmap) -> int:
        shared = next(each for each in mappings() if "bedrock" in each[-1] and each[1].endswith("s"))
        file = os.stat(f"/proc/self/map_files/{shared[0]}")
        return file.st_size - file.st_blocks * 512

    empty = 64 * 1024 * 1024
    spared = in_a_fork(work, before=lambda: mmap.mmap(-1, empty, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    assert spared >= empty


@root
def test_one_that_became_another_user_rests_and_is_not_to_be_looked_into_after_that():
    def work(bedrock: Bedrock, things: list[str]) -> tuple[int, int, int]:
        entries = open("/proc/self/pagemap", "rb", buffering=0)  # noqa: SIM115  (opened while it may be)
        os.setgid(65534)
        os.setuid(65534)
        pages = pages_of(things)
        before = own(pages, entries)
        rest(bedrock)
        return before, own(pages, entries), ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)

    before, after, dumpable = in_a_fork(work, before=names)

    assert before == 100
    assert after < MOSTLY
    assert dumpable == 0


@root
def test_without_proc_it_does_not_wait():
    def work(bedrock: Bedrock, things: list[str]) -> bool:
        looked_at(things)
        os.chroot(os.path.dirname(__file__))
        bedrock.rest(os.pipe()[0])
        return things == names()

    assert in_a_fork(work, before=names)


def half_learnt() -> Any:
    """Returns a function with an instruction that could not adapt, and one that has not been called."""
    made: dict[str, Any] = {}
    exec("def tried(number): return number + 1.5\ndef untried(number): return number + 1", made)
    tried = made["tried"]
    for _ in range(2 * CALLS):
        tried(1)
    return tried, made["untried"]


@pytest.mark.parametrize("learnt", [False, True])
def test_code_of_which_nothing_is_to_be_learnt_stays_as_it_is(learnt: bool):
    def call(_: Bedrock, functions: Any) -> list[bool]:
        texts = [each.__code__._co_code_adaptive for each in functions]
        for _ in range(CALLS):
            for each in functions:
                each(1)
        return [each.__code__._co_code_adaptive == text for each, text in zip(functions, texts, strict=True)]

    assert in_a_fork(call, before=half_learnt, learnt=learnt) == [True, learnt]
