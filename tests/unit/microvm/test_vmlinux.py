"""The kernel inside of a kernel's image, as LZ4 has packed it."""

import shutil
import struct
import subprocess

import pytest

from martlet.errors import Invalid
from martlet.microvm import vmlinux
from tests.conftest import require

KERNEL = b"\x7fELF" + b"code " * 40_000 + bytes(range(256)) * 3 + bytes(10_000)


def image(payload: bytes, sectors: int = 3, before: int = 40) -> bytes:
    """An image as x86_64 has it, with a payload."""
    setup = bytearray((sectors + 1) * 512)
    setup[0x1F1], setup[0x202:0x206] = sectors, b"HdrS"
    setup[0x248:0x250] = struct.pack("<II", before, len(payload))
    return bytes(setup) + b"\x90" * before + payload + b"behind it"


def test_it_is_unpacked_from_all_blocks():
    require(shutil.which("lz4"), "lz4")
    packed = subprocess.run(["lz4", "-l", "-c"], input=KERNEL, capture_output=True, check=True).stdout

    assert vmlinux.unpack(image(packed + struct.pack("<I", len(KERNEL)))) == KERNEL


def test_a_block_goes_on_with_what_it_has_just_written():
    # Five literals, then 12 from 1 before; three literals end the block.
    block = b"\x58" + b"\x7fELF-" + b"\x01\x00" + b"\x30" + b"end"
    packed = b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block

    assert vmlinux.unpack(image(packed * 1 + struct.pack("<I", 20))) == b"\x7fELF-" + b"-" * 12 + b"end"


def test_what_is_unpacked_already_stays_as_it_is():
    assert vmlinux.unpack(KERNEL) == KERNEL


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"nothing of the kind" * 100, "no kernel for x86_64"),
        (image(b"\x1f\x8b gzip"), "not compressed with LZ4"),
        (image(b"\x02\x21\x4c\x18" + struct.pack("<I", 4) + b"\x30abc" + bytes(4)), "damaged"),
    ],
)
def test_what_is_no_kernel_is_refused_with_what_to_take(given: bytes, why: str):
    with pytest.raises(Invalid, match=why):
        vmlinux.unpack(given)
