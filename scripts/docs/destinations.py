"""The table of destinations that no function reaches."""

from __future__ import annotations

from martlet.drivers.forbidden import FORBIDDEN
from scripts.docs.markdown import code, table


def forbidden() -> str:
    """Returns the table, with the reason of each."""
    return table(("destination", "why"), [(code(network), reason) for network, reason in FORBIDDEN])
