"""Network namespaces with a way out, made ahead for cells that will have one.

    function's namespace                      machine's namespace
    lo, eth0 (its address alone) ── veth ── m<platform><lane>-<number> ── routed, filtered, masqueraded ── world

A guest has what `sandbox.guest_link` makes in such a namespace, which has no address of its own then.

Each cell has a link of its own that is routed, so there is no network in which functions could see each other. The
name of a link says which address is behind it, and the kernel refuses a name or a route that is taken: so there is
nothing to keep account of, and nothing is left when a namespace ends with its last process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from martlet.destination import Destination
from martlet.drivers import firewall
from martlet.drivers.driver import DriverError, Guarantee, State
from martlet.drivers.resolvers import Resolvers
from martlet.sandbox import guest_link, rtnetlink, syscalls
from martlet.sandbox.rtnetlink import Request, Rtnetlink
from martlet.sandbox.syscalls import Clone

Result = TypeVar("Result")

_OWN_NAMESPACE = "/proc/thread-self/ns/net"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_IPV6_OFF = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
_LOOPBACK, _WAY_OUT = 1, 2
_ATTEMPTS = 1024
# Locally administered, and the same for every pair: nobody else is on the wire.
_INSIDE, _OUTSIDE = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")


def networks_of(lanes: int) -> int:
    """Returns into how many parts a platform's addresses are divided: for processes of each lane, for its containers,
    for its microVMs, and, the last, for builds."""
    return 3 * lanes + 1


class Egress:
    """The namespaces of one lane. Its work is done by one thread, because that moves into other namespaces.

    Args:
        run: the platform's run directory, its alone on this machine; names tables and links.
        subnet: the addresses of all functions of the platform.
        lane: number of the lane, from 0.
        lanes: how many there are; each has its part of the subnet.
    """

    def __init__(self, run: Path, subnet: IPv4Network, lane: int = 0, lanes: int = 1) -> None:
        platform = blake2b(bytes(run.absolute()), digest_size=3).hexdigest()
        self._tables = f"martlet_{platform}_"
        self._table = f"{self._tables}{lane}"
        self._lanes = lanes
        self._links = f"m{platform}{lane:02x}-"
        self._subnet = subnet
        self._gateway = subnet[1]  # nobody has it: it only stands for the other end
        self._size = (subnet.num_addresses - 3) // lanes
        self._first = subnet[2 + lane * self._size]
        self._resolvers = Resolvers.find().addresses
        self._next = 0
        self._ready = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="egress")

    async def open(self) -> None:
        """Renews or removes what an earlier life of the platform left. Raises `DriverError`."""
        if os.geteuid() == 0 and firewall.find() is not None:
            await self._do(self._take_over)

    async def make(self, *, guest: bool = False) -> int:
        """Returns a descriptor of a new namespace with a way out; it is gone when nobody holds or lives in it.

        Args:
            guest: whether that is for a guest behind a tap, and not for processes in there.

        Raises:
            DriverError: the kernel refused, or every address is in use.
        """
        making = asyncio.get_running_loop().run_in_executor(self._thread, partial(self._make, guest=guest))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_close_what_nobody_gets)
            raise

    async def equip(self, namespace: int) -> None:
        """Gives a way out to a namespace that somebody else has made, and that has nothing but loopback.

        Raises:
            DriverError: as `make`.
        """

        def equip() -> None:
            os.close(self._make(namespace))

        await self._do(equip)

    async def narrow(self, namespace: int, destinations: Sequence[Destination]) -> None:
        """Leaves a namespace these destinations only. Raises `DriverError`."""
        rules = firewall.rules_of_function(destinations, self._resolvers)

        def load() -> None:
            with _inside(namespace):
                firewall.load(rules)

        await self._do(load)

    async def close(self) -> None:
        """Removes the rules. Those whom they held must be gone."""
        if self._ready:
            await self._do(lambda: firewall.remove(self._table))
            self._ready = False
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _take_over(self) -> None:
        left = [name for name in firewall.tables() if name.startswith(self._tables)]
        for name in left:
            if int(name.removeprefix(self._tables)) >= self._lanes:
                firewall.remove(name)
        if self._table in left:
            self._prepare()

    def _prepare(self) -> None:
        """Loads the rules, then lets the machine forward: the other way round it would forward what it must not."""
        last = self._first + self._size - 1
        rules = firewall.rules_of_lane(
            self._table, self._links, (self._first, last), self._subnet, self._resolvers
        )
        firewall.load(rules)
        self._ready = True
        if _FORWARDING.read_text().strip() == "0":
            _FORWARDING.write_text("1")

    def _make(self, namespace: int | None = None, *, guest: bool = False) -> int:
        try:
            if not self._ready:
                self._prepare()
            for _ in range(min(self._size, _ATTEMPTS)):
                number, self._next = self._next, (self._next + 1) % self._size
                try:
                    return self._make_numbered(number, namespace, guest=guest)
                except FileExistsError:
                    continue
        except OSError as error:
            raise DriverError(f"no network with a way out could be made: {error}") from error
        raise DriverError("others have all the addresses that were tried: give system.egress_subnet more")

    def _make_numbered(self, number: int, namespace: int | None, *, guest: bool) -> int:
        link, address = f"{self._links}{number:x}", self._first + number
        namespace = _linked_namespace(
            link,
            namespace,
            rtnetlink.set_up(_LOOPBACK),
            *(() if guest else (rtnetlink.new_address(_WAY_OUT, address),)),
            rtnetlink.set_up(_WAY_OUT),
            rtnetlink.new_neighbour(_WAY_OUT, self._gateway, _OUTSIDE),
            rtnetlink.new_default_route(_WAY_OUT, self._gateway),
            guest=address if guest else None,
        )
        try:
            with Rtnetlink() as outside:
                index = socket.if_nametoindex(link)
                outside.ask(
                    rtnetlink.set_up(index),
                    rtnetlink.new_neighbour(index, address, _INSIDE),
                    rtnetlink.new_route(index, address),
                )
        except BaseException:
            os.close(namespace)
            raise
        return namespace


def guarantee(subnet: IPv4Network) -> Guarantee:
    """Returns whether this machine can give functions a way out. Takes some 30 ms: it tries."""
    promise = "functions that ask for egress reach other machines, and neither this one nor each other"
    lack = _lack(subnet)
    if lack is not None:
        feature, remedy = lack
        return Guarantee("egress", promise, State.MISSING, f"it lacks {feature}", remedy, needed=False)
    if others := firewall.dropping():
        why = f"the tables {', '.join(others)} may drop it"
        remedy = "unless they do already, let them pass what comes from and goes to the links m*"
        return Guarantee("egress", promise, State.WEAKER, why, remedy, needed=False)
    return Guarantee("egress", promise, State.HELD, "by links that are routed and filtered", needed=False)


def _lack(subnet: IPv4Network) -> tuple[str, str] | None:
    """Returns what this machine lacks and what to do about it."""
    if os.geteuid() != 0:
        return "root", "run Martlet as root"
    if firewall.find() is None:
        return f"the program {firewall.PROGRAM}", f"install the package {firewall.PACKAGE}"
    if _FORWARDING.read_text().strip() == "0" and not os.access(_FORWARDING, os.W_OK):
        return "forwarding", "set the sysctl net.ipv4.ip_forward to 1: here Martlet cannot"
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            thread.submit(_rehearse, subnet).result()
        except (OSError, DriverError) as error:
            remedy = "take a kernel with network namespaces, veth and nf_tables with NAT, reject and fib"
            return f"veth and nf_tables ({error})", remedy
    return None


def _rehearse(subnet: IPv4Network) -> None:
    """Tries all of it, in a namespace that nobody uses."""
    syscalls.unshare(Clone.NETWORK)
    addresses = (subnet[2], subnet[-2])
    firewall.load(firewall.rules_of_lane("martlet", "m", addresses, subnet, []))
    os.close(_linked_namespace("m", None))


def _linked_namespace(
    link: str, namespace: int | None, *requests: Request, guest: IPv4Address | None = None
) -> int:
    """Returns a descriptor of a namespace with one end of a new pair; the other, ``link``, is in this one.

    Args:
        link: the name of the outer end.
        namespace: a descriptor of it; None: a new one.
        requests: what else is done in it.
        guest: the address of the guest that it is for, if it is for one.
    """
    home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if namespace is None:
            syscalls.unshare(Clone.NETWORK)
        else:
            syscalls.setns(namespace, Clone.NETWORK)
        try:
            with suppress(OSError):  # only so that nobody tries in vain: the rules refuse IPv6
                _IPV6_OFF.write_text("1")
            with Rtnetlink() as inside:
                inside.ask(rtnetlink.new_veth("eth0", _WAY_OUT, _INSIDE, link, _OUTSIDE, home), *requests)
            if guest is not None:
                guest_link.make(guest)
            return os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            syscalls.setns(home, Clone.NETWORK)
    finally:
        os.close(home)


@contextmanager
def _inside(namespace: int) -> Iterator[None]:
    """Moves the thread into a namespace, and home again."""
    home = os.open(_OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace, Clone.NETWORK)
        try:
            yield
        finally:
            syscalls.setns(home, Clone.NETWORK)
    finally:
        os.close(home)


def _close_what_nobody_gets(made: asyncio.Future[int]) -> None:
    if not made.cancelled() and made.exception() is None:
        os.close(made.result())
