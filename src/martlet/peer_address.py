"""Where the machines of a cluster reach each other, as people write it: ``10.0.0.1:8001``, ``[fd00::1]:8001``."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


class PeerAddress(NamedTuple):
    """A host, without brackets, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> PeerAddress:
        """Reads what ``str`` writes. Raises ValueError with what to write."""
        found = _ADDRESS.fullmatch(text)
        if found is None or not 0 < int(found["port"]) < 65536:
            raise ValueError(f"{text!r} is no address: write HOST:PORT, such as 10.0.0.1:8001")
        return cls(found["six"] or found["host"], int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_peer(value: Any) -> PeerAddress:
    """Reads ``system.peer_address``. Raises ValueError with what to write."""
    if isinstance(value, PeerAddress):
        return value
    return PeerAddress.parse(value if isinstance(value, str) else str(value))


PeerAddressText = Annotated[
    PeerAddress,
    PlainValidator(parse_peer),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.1:8001"]}),
]
