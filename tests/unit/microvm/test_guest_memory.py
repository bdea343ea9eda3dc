"""A process of a guest does not wait for memory that it can have had before."""

import json
import subprocess
import sys

PAGES = 64
FORKS = f"""
import json, mmap, os, resource, sys
from martlet.microvm import memory
room = mmap.mmap(-1, {PAGES} * 4096, mmap.MAP_PRIVATE)
unused = mmap.mmap(-1, {PAGES} * 4096, mmap.MAP_PRIVATE)
room[::4096] = b"x" * {PAGES}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def written():
    known = room[::4096]
    before = faults()
    for each in (room, unused):
        for at in range(0, len(each), 4096):
            each[at] = 121
    return faults() - before, known.decode()
for owns in (False, True):
    if os.fork() == 0:
        if owns:
            memory.own()
        print(json.dumps(written()), flush=True)
        os._exit(0)
    os.wait()
"""


def test_a_process_has_for_itself_what_it_shares_and_what_it_has_never_used():
    said = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, timeout=60
    )

    (without, seen), (owning, seen_then) = map(json.loads, said.stdout.splitlines())
    assert without >= 2 * PAGES
    assert owning < PAGES / 4
    assert seen == seen_then == "x" * PAGES
