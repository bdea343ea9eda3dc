"""The smallest program that can be the first process of a container: it waits, and lets the orphans it is given go.

A root need not have any program that would do, and each of them takes a hundred times the memory. So this is one, byte
by byte, for the machines that there is code for:

    prctl(PR_SET_DUMPABLE, 0)           what runs in the container has the same user, and must not change its memory
    rt_sigaction(SIGCHLD, SIG_IGN)      the kernel buries the children of who ignores their end
    while true: pause()
"""

from __future__ import annotations

import os
import struct

_X86_64, _ADDRESS = 62, 0x400000
_FORMAT, _HEADER, _SEGMENT = b"\x7fELF\x02\x01\x01", "<16sHHIQQQIHHHHHH", "<IIQQQQQQ"
_EXECUTABLE, _LOADED, _READ_AND_EXECUTE, _PAGE = 2, 1, 5, 0x1000
_CODE = {
    "x86_64": (
        _X86_64,
        "b89d000000"  # mov eax, 157 (prctl)
        "bf04000000"  # mov edi, 4 (PR_SET_DUMPABLE)
        "31f6"  # xor esi, esi
        "0f05"  # syscall
        "b80d000000"  # mov eax, 13 (rt_sigaction)
        "bf11000000"  # mov edi, 17 (SIGCHLD)
        "488d3513000000"  # lea rsi, [action]
        "31d2"  # xor edx, edx
        "41ba08000000"  # mov r10d, 8
        "0f05"  # syscall
        "b822000000"  # wait: mov eax, 34 (pause)
        "0f05"  # syscall
        "ebf7"  # jmp wait
        "0100000000000000"  # action: SIG_IGN
        "000000000000000000000000000000000000000000000000",
    )
}


def program() -> bytes | None:
    """Returns the program for this machine, as a file that can be executed; None where there is no code for it."""
    if os.uname().machine not in _CODE:
        return None
    machine, text = _CODE[os.uname().machine]
    code = bytes.fromhex(text)
    head, segment = struct.calcsize(_HEADER), struct.calcsize(_SEGMENT)
    start, size = head + segment, head + segment + len(code)
    sizes = (head, segment, 1, 0, 0, 0)
    header = struct.pack(_HEADER, _FORMAT, _EXECUTABLE, machine, 1, _ADDRESS + start, head, 0, 0, *sizes)
    loaded = struct.pack(_SEGMENT, _LOADED, _READ_AND_EXECUTE, 0, _ADDRESS, _ADDRESS, size, size, _PAGE)
    return header + loaded + code
