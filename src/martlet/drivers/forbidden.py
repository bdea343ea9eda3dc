"""Where no function may send anything, whatever its list of destinations says; each entry with its reason.

Besides these, no function reaches an address of the machine itself (whatever those are at the moment), a broadcast
address of a network that the machine is in, an address of another function, or anything by IPv6.
"""

from __future__ import annotations

from ipaddress import IPv4Network

FORBIDDEN: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network: Linux takes 0.0.0.0 for the machine itself"),
        ("127.0.0.0/8", "loopback: services that trust whoever is on the machine"),
        ("169.254.0.0/16", "link-local: the metadata services of most clouds, which hand out credentials"),
        ("100.100.100.200/32", "the metadata service of Alibaba Cloud"),
        ("168.63.129.16/32", "the wire server of Azure, which hands out the configuration of the machine"),
        ("192.0.0.192/32", "the metadata service of Oracle Cloud, as its older images know it"),
        ("192.0.0.0/29", "the machine's end of an IPv4-in-IPv6 tunnel (RFC 6333)"),
        ("224.0.0.0/4", "multicast: discovery and routing protocols of the network around the machine"),
        ("240.0.0.0/4", "reserved, and with 255.255.255.255 broadcast"),
    )
)
