"""The Python packages a function asks for: from its configuration, or from a file in its code.

A part of `install`, which runs in the sandbox of a build.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

LONGEST_FILE = 256 * 1024
LONGEST_LINE = 500

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_EXTRAS = rf"\s*\[\s*(?:{_NAME}\s*(?:,\s*{_NAME}\s*)*)?\]"
_VERSION = r"\s*(?:===|~=|[=!<>]=|[<>])\s*[A-Za-z0-9.*+!_-]+\s*"
_REQUIREMENT = re.compile(
    rf"{_NAME}(?:{_EXTRAS})?\s*(?:{_VERSION}(?:,{_VERSION})*|\({_VERSION}(?:,{_VERSION})*\)\s*)?(?:;[^\r\n]+)?"
)
CONFIGURED, CODE = "config.dependencies", "code"
_HASH = re.compile(r"\s--hash[= ]\S+")


class Refused(Exception):
    """A requirement cannot be taken; ``field`` is what of the deploy is at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


def requirements(configured: Iterable[str], code: Path) -> list[str]:
    """Returns what to install, one requirement a line, sorted; empty where the function needs nothing.

    Args:
        configured: ``config.dependencies``; where there are any, the files are not looked at.
        code: the unpacked code: its ``requirements.txt`` counts, or else the ``dependencies`` of its
            ``pyproject.toml``.

    Raises:
        Refused: a line is not a requirement that an index can serve.
    """
    found = [(line, CONFIGURED) for line in configured]
    if not found and (text := _read(code / "requirements.txt")) is not None:
        found = [(line, "code: requirements.txt") for line in _lines(text)]
    elif not found and (text := _read(code / "pyproject.toml")) is not None:
        found = [(line, "code: pyproject.toml") for line in _project(text)]
    return sorted({_checked(line, where) for line, where in found})


def _checked(line: str, where: str) -> str:
    line = line.strip()
    if len(line) <= LONGEST_LINE and _REQUIREMENT.fullmatch(line):
        return line
    field, _, file = where.partition(": ")
    place = f" in {file}" if file else ""
    hint = "write a name, with versions if you like (requests==2.28.0)"
    if line.startswith("-"):
        hint = f"options are not taken{place}; {hint}"
    elif "@" in line or "/" in line:
        hint = f"paths and addresses are not taken, packages come from the platform's index; {hint}"
    raise Refused(f"{line[:200]!r}{place} is not a requirement: {hint}", field=field)


def _lines(text: str) -> list[str]:
    joined = text.replace("\\\r\n", " ").replace("\\\n", " ")
    lines = (_HASH.sub("", re.sub(r"(^|\s)#.*$", "", line)).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def _project(text: str) -> list[str]:
    try:
        dependencies = tomllib.loads(text).get("project", {}).get("dependencies", [])
    except (tomllib.TOMLDecodeError, AttributeError, RecursionError) as error:
        raise Refused(
            f"pyproject.toml in the code is not TOML with a [project] table: {error}", field=CODE
        ) from None
    if not isinstance(dependencies, list) or not all(isinstance(line, str) for line in dependencies):
        raise Refused("project.dependencies of pyproject.toml must be a list of strings", field=CODE)
    return dependencies


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        try:
            content = file.read(LONGEST_FILE + 1)
            text = content.decode("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise Refused(f"{path.name} in the code is not a file of UTF-8 text", field=CODE) from None
    if len(content) > LONGEST_FILE:
        raise Refused(f"{path.name} in the code is over 256 KiB", field=CODE)
    return text
