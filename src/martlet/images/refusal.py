"""How an image is refused."""

from __future__ import annotations

from martlet.errors import Invalid
from martlet.units import format_bytes

FIELD = "image"
MOST_FILES = 1_000_000
"""Files, folders and links that an image may have."""


def unusable(reason: str) -> Invalid:
    """Returns the error that refuses an image, for the caller to raise."""
    return Invalid(f"the image cannot be taken: {reason}", field=FIELD)


def too_large(limit: int) -> Invalid:
    """Returns the error that refuses an image of more than ``limit`` bytes."""
    return unusable(
        f"it unpacks to over {format_bytes(limit)}; raise system.max_image, or take a smaller one"
    )
