"""What is left out of a package: ``.martletignore``, written like a ``.gitignore``, on top of sensible defaults."""

from __future__ import annotations

import fnmatch
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
_MOST = 500


class Ignore:
    """Says what of a folder is left out; the last pattern that matches decides, ``!`` takes a match back."""

    def __init__(self, patterns: tuple[str, ...] = DEFAULTS) -> None:
        self._rules = [Rule(pattern) for pattern in patterns]

    @classmethod
    def of(cls, folder: Path) -> Ignore:
        """Reads the folder's own ``.martletignore`` on top of the defaults. Raises `Invalid` if it is not text."""
        try:
            descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return cls()
        with open(descriptor, "rb") as file:
            try:
                lines = file.read(_LONGEST).decode().splitlines()
            except (OSError, UnicodeDecodeError):
                raise refused(f"{FILE} is not a file of UTF-8 text") from None
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if len(patterns) > _MOST:
            raise refused(f"{FILE} has over {_MOST} patterns")
        return cls((*DEFAULTS, *patterns))

    def matches(self, path: str, is_folder: bool) -> bool:
        """Whether this relative path is left out. What lies in a folder that is left out is not asked about."""
        ignored = False
        parts = path.split("/")
        for rule in self._rules:
            if rule.leaves_out is not ignored and rule.matches(parts, is_folder):
                ignored = rule.leaves_out
        return ignored


class Rule:
    """One pattern, as gitignore(5) describes them.

    Attributes:
        leaves_out: False for a pattern with ``!``.
    """

    def __init__(self, pattern: str) -> None:
        self.leaves_out = not pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        self._folders_only = pattern.endswith("/")
        pattern = pattern.rstrip("/")
        parts = [part for part in pattern.split("/") if part]
        if "/" not in pattern:
            parts.insert(0, "**")
        self._parts: list[re.Pattern[str] | None] = []
        for part in parts:
            if part != "**":
                self._parts.append(re.compile(fnmatch.translate(part)))
            elif not self._parts or self._parts[-1] is not None:  # several in a row say what one does
                self._parts.append(None)

    def matches(self, path: list[str], is_folder: bool) -> bool:
        """Whether the pattern matches a path, name by name; how long the pattern is does not matter."""
        if self._folders_only and not is_folder:
            return False
        reached = self._beyond_folders({0})
        for name in path:
            ahead = set()
            for at in reached - {len(self._parts)}:
                part = self._parts[at]
                if part is None:
                    ahead |= {at, at + 1}
                elif part.match(name):
                    ahead.add(at + 1)
            reached = self._beyond_folders(ahead)
        return len(self._parts) in reached

    def _beyond_folders(self, reached: set[int]) -> set[int]:
        """Adds the places behind each ``**``, which may stand for no folder at all; not so at the end."""
        last = len(self._parts) - 1
        return reached | {at + 1 for at in reached if at < last and self._parts[at] is None}
