"""Where functions in a network of their own ask for names: the resolvers of the machine that they can reach."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

_OF_THE_MACHINE = Path("/etc/resolv.conf")
_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
"""What a resolver on the machine's own loopback (systemd-resolved, 127.0.0.53) asks itself."""


@dataclass(frozen=True, slots=True)
class Resolvers:
    """What ``resolv.conf`` says inside of a sandbox.

    Attributes:
        addresses: of the resolvers; none where the machine asks nobody but itself, and by IPv6 nobody is asked.
        text: the whole file.
    """

    addresses: tuple[IPv4Address, ...]
    text: str

    @classmethod
    def find(cls, paths: tuple[Path, ...] = (_OF_THE_MACHINE, _UPSTREAM)) -> Resolvers:
        """Returns what the first of these files says that names a resolver within reach."""
        found = [cls._read(path) for path in paths if path.is_file()]
        return next((each for each in found if each.addresses), found[0] if found else cls((), ""))

    @classmethod
    def _read(cls, path: Path) -> Resolvers:
        addresses, lines = [], []
        for line in path.read_text().splitlines():
            keyword, *values = line.split() or [""]
            if keyword != "nameserver":
                lines.append(line)
            elif values and (address := _within_reach(values[0])) is not None:
                addresses.append(address)
                lines.append(line)
        return cls(tuple(addresses), "".join(f"{line}\n" for line in lines))


def _within_reach(text: str) -> IPv4Address | None:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return None
    return None if address.is_loopback or address.is_unspecified else address
