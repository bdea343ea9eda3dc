"""The kernel inside of a kernel: what a machine monitor without firmware starts.

A ``vmlinuz`` of x86_64 is a program that unpacks the kernel proper, an ELF file, which lies in it compressed
(Documentation/arch/x86/boot.rst: ``payload_offset``, ``payload_length``). Debian compresses with LZ4, in the format
that its tools call legacy: blocks with their lengths, each of at most 8 MiB.
"""

from __future__ import annotations

import struct

from martlet.errors import Invalid

_MAGIC, _AT = b"HdrS", 0x202
_SECTORS, _PAYLOAD = 0x1F1, 0x248
_SECTOR = 512
_LZ4_LEGACY = b"\x02\x21\x4c\x18"
_ELF = b"\x7fELF"
_LONG = 15


def unpack(image: bytes) -> bytes:
    """Returns the kernel proper. Takes some seconds.

    Raises:
        Invalid: the image has none, or one that is compressed in another way.
    """
    if image.startswith(_ELF):
        return image
    if image[_AT : _AT + len(_MAGIC)] != _MAGIC:
        raise Invalid("this is no kernel for x86_64: take the vmlinuz, or the vmlinux, of one")
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = (image[_SECTORS] + 1) * _SECTOR + offset
    payload = image[start : start + length]
    if not payload.startswith(_LZ4_LEGACY):
        raise Invalid("the kernel is not compressed with LZ4: take the vmlinux of it")
    kernel = b"".join(_blocks(payload))
    if not kernel.startswith(_ELF):
        raise Invalid("what the kernel's image has in it is no kernel: it is damaged")
    return kernel


def _blocks(payload: bytes) -> list[bytes]:
    blocks, at = [], len(_LZ4_LEGACY)
    while at + 8 <= len(payload):  # after the last one comes the length of all
        (length,) = struct.unpack_from("<I", payload, at)
        blocks.append(_block(payload[at + 4 : at + 4 + length]))
        at += 4 + length
    return blocks


def _block(packed: bytes) -> bytes:
    """Returns what a block of LZ4 has in it: literals, each followed by a piece of what has been before."""
    out, at, end = bytearray(), 0, len(packed)
    while at < end:
        token = packed[at]
        at += 1
        literals, at = _length(token >> 4, packed, at)
        out += packed[at : at + literals]
        at += literals
        if at >= end:
            break
        distance = packed[at] | packed[at + 1] << 8
        matched, at = _length(token & _LONG, packed, at + 2)
        matched += 4
        start = len(out) - distance
        if distance >= matched:
            out += out[start : start + matched]
        else:  # it goes on with what it has just written
            out += (out[start:] * (matched // distance + 1))[:matched]
    return bytes(out)


def _length(length: int, packed: bytes, at: int) -> tuple[int, int]:
    if length == _LONG:
        while packed[at] == 255:
            length += 255
            at += 1
        length += packed[at]
        at += 1
    return length, at
