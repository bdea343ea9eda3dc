"""The requests of the platform itself, below ``/_martlet/``, as an instance that has its code answers them."""

from __future__ import annotations

from typing import Any

from .http1 import Head, whole
from .response import encode_json

PREFIX = "/_martlet/"
HEALTH = "/_martlet/health"
SPECIALISE = "/_martlet/specialise"


def answer(head: Head) -> bytes:
    """Returns the whole response: 200 to a health probe, 409 to being specialised again, else 404."""
    match head.method, head.target:
        case "GET", "/_martlet/health":
            return respond(head, 200, {"status": "ok"})
        case "POST", "/_martlet/specialise":
            error = {"type": "AlreadySpecialised", "message": "this instance has its code already"}
            return respond(head, 409, {"error": error})
        case _:
            return respond(
                head, 404, {"error": {"type": "NotFound", "message": f"there is no {head.target}"}}
            )


def respond(head: Head, status: int, document: dict[str, Any]) -> bytes:
    """Returns a whole response with a JSON body."""
    return whole(head, status, b"content-type: application/json\r\n", encode_json(document))
