"""The runtime that docs/runtimes.md shows, as files."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/runtimes.md"
_FILE = re.compile(r"^`(?P<name>[\w.]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def write_runtime(folder: Path) -> None:
    """Writes the runtime into a folder, which appears as a whole."""
    unfinished = folder.parent / f".{folder.name}"
    unfinished.mkdir(parents=True)
    files = {found["name"]: found["text"] for found in _FILE.finditer(PAGE.read_text())}
    assert files.keys() == {"runtime.toml", "shim.py"}
    for name, text in files.items():
        (unfinished / name).write_text(text)
    unfinished.rename(folder)
