"""The rules that hold what functions with a way out send, as tables of nftables, loaded with the program ``nft``.

One table a lane stands in the machine's namespace and is the same whatever cells there are: it tells them by the names
of their links. A function with a list of destinations has one more in its own namespace, which goes with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from martlet.destination import Destination
from martlet.drivers.driver import DriverError
from martlet.drivers.forbidden import FORBIDDEN
from martlet.sandbox import guest_link

PROGRAM = "nft"
PACKAGE = "nftables"
_SECONDS = 10.0

_REFUSE = """
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
"""

_LANE = """
add table inet {table}
delete table inet {table}
table inet {table} {{
  {refuse}
  chain from_functions {{
    # Before any redirection: what is for a port of this machine must not be taken for what that is redirected to.
    type filter hook prerouting priority mangle; policy accept;
    iifname != "{links}*" accept
    fib saddr . iif oif missing drop comment "an address that is not this function's"
    meta nfproto ipv6 goto refuse
    ct state established,related accept
    ct state invalid drop
    {names}
    fib daddr type != unicast goto refuse
    ip daddr {{ {forbidden} }} goto refuse
  }}
  chain to_functions {{
    type filter hook forward priority filter; policy accept;
    oifname "{links}*" ct state new goto refuse
  }}
  chain way_out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {first}-{last} oifname != "{links}*" masquerade
  }}
}}
"""

_FUNCTION = """
table inet martlet {{
  {refuse}
  chain allowed {{
    {names}
    {destinations}
    goto refuse
  }}
  chain out {{
    type filter hook output priority filter; policy accept;
    oifname {{ "lo", "{tap}" }} accept comment "what is refused to a guest is said so from here"
    goto allowed
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    iifname "{tap}" goto allowed
  }}
}}
"""


def find() -> str | None:
    """Returns where ``nft`` is, or None; it may lie where the search path of a service does not lead."""
    return shutil.which(PROGRAM, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def rules_of_lane(
    table: str,
    links: str,
    addresses: tuple[IPv4Address, IPv4Address],
    subnet: IPv4Network,
    resolvers: Sequence[IPv4Address],
) -> str:
    """Returns what makes the table of a lane, or makes it anew.

    Args:
        table: its name.
        links: what the names of the lane's links begin with.
        addresses: the first and the last that its functions have.
        subnet: of all functions of the platform.
        resolvers: reachable on the port of DNS, wherever they are.
    """
    forbidden = _minimal([network for network, _ in FORBIDDEN] + [subnet])
    return _LANE.format(
        table=table,
        refuse=_REFUSE,
        links=links,
        names=_names(resolvers),
        forbidden=", ".join(map(str, forbidden)),
        first=addresses[0],
        last=addresses[1],
    )


def rules_of_function(destinations: Iterable[Destination], resolvers: Sequence[IPv4Address]) -> str:
    """Returns what leaves a function these destinations only, and the resolvers."""
    return _FUNCTION.format(
        refuse=_REFUSE,
        names=_names(resolvers),
        destinations="\n    ".join(map(_accept, destinations)),
        tap=guest_link.TAP,
    )


def load(rules: str) -> None:
    """Loads rules into the network namespace of the calling thread, all or nothing.

    Raises:
        DriverError: they were refused.
    """
    _run("-f", "-", text=rules)


def tables() -> list[str]:
    """Returns the names of the tables in the network namespace of the calling thread. Raises `DriverError`."""
    lines = [line.split() for line in _run("list", "tables").splitlines()]
    return [name for _, family, name in lines if family == "inet"]


def dropping() -> list[str]:
    """Returns the tables of others that drop what is forwarded unless a rule lets it pass. Raises `DriverError`."""
    listed = json.loads(_run("--json", "list", "chains"))["nftables"]
    chains = [each["chain"] for each in listed if "chain" in each]
    return [
        f"{chain['family']} {chain['table']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    ]


def remove(table: str) -> None:
    """Removes a table, if it is there. Raises `DriverError`."""
    load(f"add table inet {table}\ndelete table inet {table}\n")


def _accept(destination: Destination) -> str:
    ports = destination.ports
    which = "" if ports is None else f" meta l4proto {{ tcp, udp }} th dport {ports[0]}-{ports[1]}"
    return f"ip daddr {destination.network}{which} accept"


def _names(resolvers: Sequence[IPv4Address]) -> str:
    if not resolvers:
        return ""
    addresses = ", ".join(map(str, resolvers))
    return f"ip daddr {{ {addresses} }} meta l4proto {{ tcp, udp }} th dport 53 accept"


def _run(*arguments: str, text: str = "") -> str:
    program = find()
    if program is None:
        raise DriverError(f"the program {PROGRAM} is missing: install the package {PACKAGE}")
    try:
        done = subprocess.run(
            [program, *arguments], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"{PROGRAM}: {error}") from error
    if done.returncode != 0:
        raise DriverError(f"{PROGRAM}: {done.stderr.strip().partition(chr(10))[0]}")
    return done.stdout


def _minimal(networks: Iterable[IPv4Network]) -> Iterable[IPv4Network]:
    """Returns networks that cover the same addresses and do not overlap, as a set of nftables must not."""
    return collapse_addresses(networks)
