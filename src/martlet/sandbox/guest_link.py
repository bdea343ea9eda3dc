"""The way out of a guest: a tap in a network namespace that leads on.

    guest                        namespace                                machine
    eth0, its address ── tap0, GATEWAY ── forwarded ── eth0 ── routed, filtered, masqueraded (`drivers.egress`)

The address is the guest's alone, and nobody has it in the namespace: what holds for a process with that address holds
for the guest. The lane makes all of it (`make`), the warden takes the tap for its monitor (`attach`), and the agent in
the guest takes the other end (`join`).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from martlet.sandbox import rtnetlink
from martlet.sandbox.rtnetlink import Rtnetlink

DEVICE = "net/tun"
"""What a tap is taken by, below ``/dev``."""
TAP = "tap0"
GATEWAY, _ALONE = IPv4Address("169.254.0.1"), IPv4Address("169.254.0.2")
_GUEST = "eth0"
_SET_INTERFACE, _SET_PERSISTENT = 0x400454CA, 0x400454CB
_IS_TAP, _WITHOUT_HEADERS = 0x0002, 0x1000
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_ROUTES = Path("/proc/thread-self/net/route")
_IPV6_OFF = Path(f"/proc/sys/net/ipv6/conf/{_GUEST}/disable_ipv6")


def make(address: IPv4Address) -> None:
    """Makes the tap of a guest with this address in the network namespace of the calling thread. Raises OSError."""
    _make_tap()
    index = socket.if_nametoindex(TAP)
    with Rtnetlink() as link:
        link.ask(
            rtnetlink.new_address(index, GATEWAY),
            rtnetlink.set_up(index),
            rtnetlink.new_neighbour(index, address, hardware_of(address)),
            rtnetlink.new_route(index, address),
        )
    _FORWARDING.write_text("1")


def make_alone() -> IPv4Address:
    """Makes a tap that leads nowhere, for a guest that must have a network device. Returns the guest's address.

    Raises:
        OSError: there is one already, or this process may not.
    """
    _make_tap()
    return _ALONE


def attach() -> int:
    """Returns a descriptor of the tap in this network namespace: frames are read from it and written to it.

    Raises:
        OSError: somebody has it, or this process may not.
    """
    tap = os.open(f"/dev/{DEVICE}", os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IS_TAP | _WITHOUT_HEADERS
        fcntl.ioctl(tap, _SET_INTERFACE, struct.pack("16sH22x", TAP.encode(), flags))
    except OSError:
        os.close(tap)
        raise
    return tap


def _make_tap() -> None:
    tap = attach()
    try:
        fcntl.ioctl(tap, _SET_PERSISTENT, 1)  # until the namespace ends
    finally:
        os.close(tap)


def address_here() -> IPv4Address | None:
    """Returns the address of the guest whose tap is in this network namespace; None where there is none."""
    for line in _ROUTES.read_text().splitlines()[1:]:
        link, destination, *_ = line.split()
        if link == TAP:
            return IPv4Address(struct.pack("=I", int(destination, 16)))
    return None


def join(address: IPv4Address) -> None:
    """Gives the guest that this runs in its address, and a hardware address that follows from it. Raises OSError."""
    index = socket.if_nametoindex(_GUEST)
    with suppress(OSError):  # only so that nobody tries in vain: the rules refuse IPv6
        _IPV6_OFF.write_text("1")
    with Rtnetlink() as link:
        link.ask(
            rtnetlink.set_hardware_address(index, hardware_of(address)),
            rtnetlink.new_address(index, address),
            rtnetlink.set_up(index),
            *(() if address == _ALONE else (rtnetlink.new_default_route(index, GATEWAY),)),
        )


def show(address: IPv4Address) -> None:
    """Lets the guest that this runs in reach who has an address on the link itself. Raises OSError."""
    with Rtnetlink() as link:
        link.ask(rtnetlink.new_route(socket.if_nametoindex(_GUEST), address))


def hardware_of(address: IPv4Address) -> bytes:
    """Returns the hardware address of the guest with this address: one that nobody has sold."""
    return b"\x06\x00" + address.packed
