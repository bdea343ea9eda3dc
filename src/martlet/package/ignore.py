"""What is left out of a package: ``.martletignore``, written like a ``.gitignore``, on top of sensible defaults."""

from __future__ import annotations

import os
import re
from pathlib import Path

from martlet.package.rules import refused

FILE = ".martletignore"
DEFAULTS = (
    ".git",
    ".hg",
    ".svn",
    "__pycache__",
    "*.pyc",
    ".venv",
    "venv/",
    ".tox",
    ".nox",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "__MACOSX",
    ".DS_Store",
    FILE,
)
_LONGEST = 64 * 1024


class Ignore:
    """Says what of a folder is left out; the last pattern that matches decides, ``!`` takes a match back."""

    def __init__(self, patterns: tuple[str, ...] = DEFAULTS) -> None:
        self._rules = [_rule(pattern) for pattern in patterns]

    @classmethod
    def of(cls, folder: Path) -> Ignore:
        """Reads the folder's own ``.martletignore`` on top of the defaults. Raises `Invalid` if it is not text."""
        try:
            descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return cls()
        with open(descriptor, "rb") as file:
            try:
                text = file.read(_LONGEST + 1).decode()
            except (OSError, UnicodeDecodeError):
                raise refused(f"{FILE} is not a file of UTF-8 text") from None
        if len(text) > _LONGEST:
            raise refused(f"{FILE} is over 64 KiB")
        lines = (line.rstrip() for line in text.splitlines())
        return cls(DEFAULTS + tuple(line for line in lines if line and not line.startswith("#")))

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether this relative path is left out. What lies in a folder that is left out is not asked about."""
        ignored = False
        for expression, verdict, folders_only in self._rules:
            if ignored is not verdict and (is_folder or not folders_only) and expression.fullmatch(path):
                ignored = verdict
        return ignored


def _rule(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    body = pattern.removeprefix("!")
    folders_only = body.endswith("/")
    body = body.rstrip("/")
    anchored = "/" in body
    expression = _expression(body.lstrip("/"))
    return (
        re.compile(expression if anchored else f"(?:.*/)?{expression}"),
        body == pattern.rstrip("/"),
        folders_only,
    )


def _expression(pattern: str) -> str:
    """Translates the wildcards: ``**/`` any folders, ``*`` and ``?`` within one name, ``[...]`` a set."""
    out = ""
    rest = re.sub(r"\*{3,}", "**", pattern)
    while rest:
        if rest.startswith("**/"):
            out, rest = f"{out}(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            out, rest = f"{out}.*", rest[2:]
        elif (found := re.match(r"\[(!?)([^\]/\\]+)\]", rest)) is not None:
            escaped = re.sub(r"([\[&|~^])", r"\\\1", found[2])
            out, rest = f"{out}[{'^' if found[1] else ''}{escaped}]", rest[found.end() :]
        else:
            single = {"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0]))
            out, rest = out + single, rest[1:]
    return out
