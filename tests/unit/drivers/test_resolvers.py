from ipaddress import IPv4Address
from pathlib import Path

from martlet.drivers.resolvers import Resolvers


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_resolvers_on_loopback_and_by_ipv6_are_left_out_and_all_else_stays(tmp_path: Path):
    lines = [
        "search example.com",
        "nameserver 127.0.0.1",
        "nameserver 192.0.2.53",
        "nameserver fd00::53",
        "options edns0",
    ]
    path = written(tmp_path / "resolv.conf", "\n".join(lines))

    found = Resolvers.find((path,))

    assert found.addresses == (IPv4Address("192.0.2.53"),)
    assert found.text == "search example.com\nnameserver 192.0.2.53\noptions edns0\n"


def test_where_the_machine_asks_itself_its_upstream_is_asked(tmp_path: Path):
    stub = written(tmp_path / "stub", "nameserver 127.0.0.53\n")
    upstream = written(tmp_path / "upstream", "nameserver 192.0.2.53\n")

    assert Resolvers.find((stub, upstream)).addresses == (IPv4Address("192.0.2.53"),)
    assert Resolvers.find((upstream, stub)).addresses == (IPv4Address("192.0.2.53"),)


def test_a_machine_without_a_resolver_within_reach_has_none(tmp_path: Path):
    stub = written(tmp_path / "stub", "nameserver 127.0.0.53\n")

    assert Resolvers.find((stub, tmp_path / "missing")) == Resolvers((), "")
    assert Resolvers.find((tmp_path / "missing",)) == Resolvers((), "")
