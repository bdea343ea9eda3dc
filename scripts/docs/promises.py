"""The promises that README.md shows, copied from SPECIFICATION.md so that a figure is written down once.

There they stand between ``<!-- promises -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from pathlib import Path

SPECIFICATION = Path(__file__).parents[2] / "SPECIFICATION.md"


def table() -> str:
    """Returns the table of promises with the figures measured."""
    text = SPECIFICATION.read_text() if SPECIFICATION.exists() else ""
    found = re.search(r"<!-- promises -->\n(.*?)<!-- end -->", text, re.DOTALL)
    return found[1].strip() if found else "Run `make bench` to measure it on your machine."
