"""The table of endpoints, from the description of the management API."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from martlet.control.api import create_app
from martlet.control.control import Control
from martlet.gateway.gateway import OPEN_PATHS, scope_for
from scripts.docs import markdown
from scripts.docs.markdown import code, described

DESCRIPTION = "/openapi.json"
HEALTH = "/health"


def table() -> str:
    """Returns the table of every endpoint, with the scope its key needs and what it does."""
    rows = [
        (code(f"{method} {path}"), _scope(method, path), described(meaning, f"{method} {path}"))
        for method, path, meaning in _operations()
    ]
    return markdown.table(("request", "scope", "meaning"), rows)


def requests() -> list[tuple[str, str]]:
    """Returns the method and the path of every endpoint: ``("GET", "/functions/{name}")``."""
    return [(method, path) for method, path, _ in _operations()]


def _operations() -> Iterator[tuple[str, str, str]]:
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            yield method.upper(), path, operation.get("description", "").split("\n\n")[0]
    yield "GET", DESCRIPTION, "Describes the management API, as OpenAPI."


@cache
def _document() -> dict[str, Any]:
    return create_app(cast(Control, None)).openapi()  # to be described, it need not be there


def _scope(method: str, path: str) -> str:
    if path == HEALTH or path.encode() in OPEN_PATHS:
        return ""
    return scope_for(method.encode(), path.split("/")[1].encode())
