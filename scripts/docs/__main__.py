"""``python -m scripts.docs``: writes every generated part of the documents anew.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; `PARTS` says what makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from scripts.docs import commands, destinations, endpoints, errors, metrics, promises, runtimes, settings

ROOT = Path(__file__).parents[2]

PARTS: dict[str, Callable[[], str]] = {
    "system settings": settings.system,
    "function settings": settings.function,
    "declared settings": settings.declared,
    "environment variables": settings.environment,
    "endpoints": endpoints.table,
    "errors": errors.table,
    "commands": commands.reference,
    "exit codes": commands.exit_codes,
    "metrics": metrics.table,
    "promises": promises.table,
    "runtimes": runtimes.table,
    "runtime keys": runtimes.keys,
    "forbidden destinations": destinations.forbidden,
}

_PART = re.compile(r"(<!-- generated: (?P<name>[a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """Returns every Markdown document that may have generated parts."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def renewed(text: str) -> str:
    """Returns a document with its generated parts as the sources have them now."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part['name']]()}\n\n{part[3]}", text)


def main() -> None:
    """Renews the documents that are stale."""
    for path in documents():
        text = path.read_text()
        if (new := renewed(text)) != text:
            path.write_text(new)
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
