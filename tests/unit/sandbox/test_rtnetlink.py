import socket
from ipaddress import IPv4Address

import pytest

from martlet.sandbox import rtnetlink, syscalls
from martlet.sandbox.rtnetlink import Rtnetlink
from martlet.sandbox.syscalls import Clone
from tests.alone import alone

pytestmark = pytest.mark.root

HERE, THERE = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")


def in_a_new_namespace(function):
    def moved():
        syscalls.unshare(Clone.NETWORK)
        return function()

    return alone(moved)


def test_a_pair_of_links_gets_the_names_that_were_asked_for():
    def make() -> list[str]:
        with Rtnetlink() as netlink, open("/proc/thread-self/ns/net") as namespace:
            netlink.ask(rtnetlink.new_veth("near", 7, HERE, "far", THERE, namespace.fileno()))
        assert socket.if_nametoindex("near") == 7
        return [name for _, name in socket.if_nameindex()]

    assert {"lo", "near", "far"} <= set(in_a_new_namespace(make))


def test_what_the_kernel_refuses_is_raised_and_the_rest_is_done():
    def ask_too_much() -> list[str]:
        with Rtnetlink() as netlink, open("/proc/thread-self/ns/net") as namespace:
            pair = rtnetlink.new_veth("near", 7, HERE, "far", THERE, namespace.fileno())
            netlink.ask(pair)
            said = []
            for requests in ((pair, rtnetlink.set_up(1)), (rtnetlink.set_up(99),)):
                try:
                    netlink.ask(*requests)
                except OSError as error:
                    said.append(type(error).__name__)
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname()).close()
        return said

    assert in_a_new_namespace(ask_too_much) == ["FileExistsError", "OSError"]


def test_an_address_that_has_a_route_does_not_get_another():
    def route_twice() -> str:
        with Rtnetlink() as netlink:
            netlink.ask(rtnetlink.set_up(1), rtnetlink.new_route(1, IPv4Address("198.18.0.2")))
            try:
                netlink.ask(rtnetlink.new_route(1, IPv4Address("198.18.0.2")))
            except FileExistsError:
                return "refused"
        return "given"

    assert in_a_new_namespace(route_twice) == "refused"
