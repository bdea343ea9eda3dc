from ipaddress import IPv4Network

import pytest

from martlet.destination import Destination, parse_destination


@pytest.mark.parametrize(
    ("text", "network", "ports"),
    [
        ("203.0.113.0/24", "203.0.113.0/24", None),
        ("10.0.0.0/8:5432", "10.0.0.0/8", (5432, 5432)),
        ("192.0.2.7:8000-8999", "192.0.2.7/32", (8000, 8999)),
        ("0.0.0.0/0", "0.0.0.0/0", None),
    ],
)
def test_networks_are_read_with_and_without_ports(text: str, network: str, ports: tuple[int, int] | None):
    destination = parse_destination(text)

    assert destination == Destination(IPv4Network(network), ports)
    assert parse_destination(str(destination)) == destination


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("example.com:443", "write an IPv4 network"),
        ("fd00::/8", "write an IPv4 network"),
        (7, "write an IPv4 network"),
        ("10.0.0.300", "is not an IPv4 network"),
        ("10.0.0.0/40", "is not an IPv4 network"),
        ("10.0.0.1/8", r"write 10\.0\.0\.0/8"),
        ("10.0.0.0/8:0", "ports are from 1 to 65535"),
        ("10.0.0.0/8:70000", "ports are from 1 to 65535"),
        ("10.0.0.0/8:90-80", "the first of a range the lower"),
        ("10.0.0.0/8:80 accept", "write an IPv4 network"),
        ("10.0.0.0/8\n", "write an IPv4 network"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: object, remedy: str):
    with pytest.raises(ValueError, match=remedy):
        parse_destination(text)
