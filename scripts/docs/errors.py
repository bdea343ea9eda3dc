"""The table of errors, from their classes."""

from __future__ import annotations

from martlet import errors
from martlet.errors import MartletError, every_error
from scripts.docs import markdown
from scripts.docs.markdown import code, described


def table() -> str:
    """Returns the table of every error the platform answers with."""
    return markdown.table(
        ("status", "`code`", "meaning", "a retry helps"),
        [
            (
                str(error.status),
                code(error.code),
                _meaning(error),
                "" if error.default_retry_after is None else "yes",
            )
            for error in every_error()
            if error.__module__ == errors.__name__  # others are a case of one of these, or answer nobody
        ],
    )


def _meaning(error: type[MartletError]) -> str:
    first = (error.__doc__ or "").split("\n\n")[0]
    return described(first, error.__name__).replace("``", "`")
