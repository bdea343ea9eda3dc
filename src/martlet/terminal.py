"""What terminals obey, taken out of what others have written.

Whoever reads a log is not its author: a sequence in it may move the cursor, name the window, fill the clipboard or
hide a line.
"""

from __future__ import annotations

import re

# ECMA-48: control sequences (colours), operating system commands (titles, the clipboard), other escapes, and controls.
_OBEYED = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def plain(text: str) -> str:
    """Returns a text without what a terminal would obey but line ends and tabs."""
    return _OBEYED.sub("", text)
