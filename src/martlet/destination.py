"""Where a function may connect to, as people write it: ``10.0.0.0/8:5432``."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?(:[0-9]{1,5}(-[0-9]{1,5})?)?$"
_HIGHEST_PORT = 65535


class Destination(NamedTuple):
    """A network and, unless all are meant, the first and the last port."""

    network: IPv4Network
    ports: tuple[int, int] | None

    def __str__(self) -> str:
        """Writes it as `parse_destination` reads it."""
        if self.ports is None:
            return str(self.network)
        first, last = self.ports
        return f"{self.network}:{first}" if first == last else f"{self.network}:{first}-{last}"


def parse_destination(value: Any) -> Destination:
    """Reads ``"203.0.113.0/24"``, ``"10.0.0.5:443"`` or ``"10.0.0.0/8:5000-5999"``.

    Raises:
        ValueError: it is none of these; the message says what to write.
    """
    if isinstance(value, Destination):
        return value
    if not isinstance(value, str) or not re.fullmatch(_PATTERN, value):
        raise ValueError(
            f"{value!r} is not a destination: write an IPv4 network, with a port or a range of ports where not all "
            "are meant (10.0.0.0/8:5432, 203.0.113.0/24, 192.0.2.7:8000-8999)"
        )
    network, _, ports = value.partition(":")
    return Destination(_parse_network(network), _parse_ports(value, ports) if ports else None)


def _parse_network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 network: write one such as 203.0.113.0/24") from None
    if "/" in text and str(network) != text:
        raise ValueError(f"{text} has address bits behind its prefix: write {network}, or the address alone")
    return network


def _parse_ports(value: str, text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    ports = int(first), int(last or first)
    if not 1 <= ports[0] <= ports[1] <= _HIGHEST_PORT:
        raise ValueError(f"{value}: ports are from 1 to {_HIGHEST_PORT}, the first of a range the lower")
    return ports


DestinationText = Annotated[
    Destination,
    BeforeValidator(parse_destination),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _PATTERN, "examples": ["203.0.113.0/24:443"]}),
]
