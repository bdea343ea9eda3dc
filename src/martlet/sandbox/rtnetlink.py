"""The few messages of rtnetlink(7) that give a network namespace a way out: links, addresses, routes, neighbours.

A client for all of rtnetlink (pyroute2) takes 14 MiB of memory in each lane and half a second to import.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address

_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 20, 24, 28
_ERROR = 2
_REQUEST, _ACKNOWLEDGE = 0x1, 0x4
_CHANGE, _MAKE = 0, 0x200 | 0x400  # to make it, and not to take what is there

_LINK_ADDRESS, _LINK_NAME, _LINK_INFO, _LINK_NAMESPACE = 1, 3, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_ADDRESS, _LOCAL = 1, 2
_ROUTE_DESTINATION, _ROUTE_LINK, _ROUTE_GATEWAY = 1, 4, 5
_NEIGHBOUR_DESTINATION, _NEIGHBOUR_ADDRESS = 1, 2

_UP = 0x1
_ON_LINK = 0x4
_PERMANENT = 0x80
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_GLOBAL, _SCOPE_LINK, _UNICAST = 254, 4, 0, 253, 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS_HEAD = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_BUFFER = 32 * 1024

Request = tuple[int, int, bytes]
"""The type of a message, its flags and its body."""


class Rtnetlink:
    """A socket that changes the network namespace in which it was made, wherever its thread is later."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, *requests: Request) -> None:
        """Has the kernel do all of this, in this order.

        Raises:
            OSError: it refused one; the others are done where they can be without it.
        """
        packet = b"".join(
            _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACKNOWLEDGE | flags, number, 0) + body
            for number, (kind, flags, body) in enumerate(requests)
        )
        self._socket.send(packet)
        answered, refused = 0, 0
        while answered < len(requests):
            answers = memoryview(self._socket.recv(_BUFFER))
            while answers:
                length, kind, *_ = _HEADER.unpack_from(answers)
                if kind == _ERROR:
                    answered += 1
                    refused = refused or -struct.unpack_from("=i", answers, _HEADER.size)[0]
                answers = answers[_aligned(length) :]
        if refused:
            raise OSError(refused, os.strerror(refused))


def new_veth(
    name: str, index: int, address: bytes, peer: str, peer_address: bytes, peer_namespace: int
) -> Request:
    """Makes a pair of links, each the other's far end.

    Args:
        name: of the end in the namespace that is asked.
        index: its number there, which must be free.
        address: its hardware address.
        peer: the name of the other end.
        peer_address: the hardware address of that.
        peer_namespace: a descriptor of the namespace that it lies in.
    """
    far_end = (
        _link(0)
        + _attribute(_LINK_NAME, _text(peer))
        + _attribute(_LINK_ADDRESS, peer_address)
        + _attribute(_LINK_NAMESPACE, struct.pack("=I", peer_namespace))
    )
    info = _attribute(_INFO_KIND, _text("veth")) + _attribute(_INFO_DATA, _attribute(_VETH_PEER, far_end))
    return (
        _NEW_LINK,
        _MAKE,
        (
            _link(index)
            + _attribute(_LINK_NAME, _text(name))
            + _attribute(_LINK_ADDRESS, address)
            + _attribute(_LINK_INFO, info)
        ),
    )


def set_up(index: int) -> Request:
    """Switches a link on."""
    return _NEW_LINK, _CHANGE, _link(index, flags=_UP, change=_UP)


def set_hardware_address(index: int, address: bytes) -> Request:
    """Changes the hardware address of a link."""
    return _NEW_LINK, _CHANGE, _link(index) + _attribute(_LINK_ADDRESS, address)


def new_address(index: int, address: IPv4Address) -> Request:
    """Gives a link an address, and no network around it."""
    head = _ADDRESS_HEAD.pack(socket.AF_INET, 32, 0, _SCOPE_GLOBAL, index)
    return (
        _NEW_ADDRESS,
        _MAKE,
        head + _attribute(_LOCAL, address.packed) + _attribute(_ADDRESS, address.packed),
    )


def new_route(index: int, destination: IPv4Address) -> Request:
    """Sends what is for one address to a link."""
    head = _ROUTE.pack(socket.AF_INET, 32, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_LINK, _UNICAST, 0)
    link = struct.pack("=I", index)
    return (
        _NEW_ROUTE,
        _MAKE,
        (head + _attribute(_ROUTE_DESTINATION, destination.packed) + _attribute(_ROUTE_LINK, link)),
    )


def new_default_route(index: int, gateway: IPv4Address) -> Request:
    """Sends what no other route is for to a gateway on a link; the gateway needs no route of its own."""
    head = _ROUTE.pack(
        socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_GLOBAL, _UNICAST, _ON_LINK
    )
    link = struct.pack("=I", index)
    return (
        _NEW_ROUTE,
        _MAKE,
        head + _attribute(_ROUTE_GATEWAY, gateway.packed) + _attribute(_ROUTE_LINK, link),
    )


def new_neighbour(index: int, address: IPv4Address, hardware: bytes) -> Request:
    """Says for good which hardware address an address has on a link, so that nobody asks."""
    head = _NEIGHBOUR.pack(socket.AF_INET, index, _PERMANENT, 0, 0)
    return (
        _NEW_NEIGHBOUR,
        _MAKE,
        (
            head
            + _attribute(_NEIGHBOUR_DESTINATION, address.packed)
            + _attribute(_NEIGHBOUR_ADDRESS, hardware)
        ),
    )


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, change)


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(_aligned(length) - length)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _aligned(length: int) -> int:
    return (length + 3) & ~3
