"""Asks programs for their version, and remembers the answers: some take a second to say it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

ASK_SECONDS = 20.0
_AT_ONCE = 4
_DOTTED, _NUMBER = re.compile(r"\d+(?:\.\d+)+"), re.compile(r"\d+")

_remembered: dict[str, str] = {}

Question: TypeAlias = tuple[str, ...]
"""A command that prints a version; the first word is the path of a program."""


class Versions:
    """What programs answered. An answer holds as long as the program is the same file, unchanged.

    Args:
        file: where answers are kept; None: only in the memory of this process. A file that cannot be read or written is
            done without.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._answers = _remembered if file is None else _read(file)

    def ask(self, questions: Iterable[Question]) -> dict[Question, str]:
        """Returns the version that each command prints, without those that print none within `ASK_SECONDS`."""
        keys = {question: key for question in questions if (key := _key(question)) is not None}
        unknown = [question for question, key in keys.items() if key not in self._answers]
        if unknown:
            with ThreadPoolExecutor(_AT_ONCE) as threads:
                for question, version in zip(unknown, threads.map(_ask, unknown), strict=True):
                    if version is not None:
                        self._answers[keys[question]] = version
            self._write()
        return {question: self._answers[key] for question, key in keys.items() if key in self._answers}

    def _write(self) -> None:
        if self._file is None:
            return
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.")
            try:
                with open(descriptor, "w") as file:
                    json.dump(_read(self._file) | self._answers, file, indent=1)
                os.replace(name, self._file)
            except BaseException:
                os.unlink(name)
                raise


def _read(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        answers: Any = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in answers.items() if isinstance(v, str)} if isinstance(answers, dict) else {}


def _key(question: Question) -> str | None:
    """Returns what the answer depends on; None where there is no such program."""
    try:
        found = os.stat(question[0])
    except OSError:
        return None
    return json.dumps([*question, found.st_mtime_ns, found.st_size])


def _ask(question: Sequence[str]) -> str | None:
    try:
        process = subprocess.Popen(
            question,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    except OSError:
        return None
    with process:
        try:
            output = process.communicate(timeout=ASK_SECONDS)[0].decode(errors="replace")
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return None
    found = _DOTTED.search(output) or _NUMBER.search(output)
    return found[0] if found and process.returncode == 0 else None
