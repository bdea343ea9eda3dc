"""What the exit code of ``martlet`` means; documented here and nowhere else."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from martlet.errors import MartletError


class ExitCode(IntEnum):
    """An exit code, with its ``meaning`` for people."""

    meaning: str

    DONE = 0, "done"
    FAILED = 1, "it failed"
    USAGE = 2, "a wrong option, argument or configuration"
    NOT_FOUND = 3, "no such function, revision, key or other resource"
    REFUSED = 4, "the key is unknown, or may not do this"
    FUNCTION_FAILED = 5, "the function raised, crashed, ran too long, or does not build or load"
    UNREACHABLE = 6, "the platform does not answer"
    BUSY = 7, "a limit is reached; try again later"
    NOT_OK = 8, "the function ran and answered with a status other than 2xx"
    INTERRUPTED = 130, "Ctrl-C"

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Makes a member that knows its meaning."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


def exit_code_of(kind: type[MartletError]) -> ExitCode:
    """Returns the exit code for an error of the platform."""
    from martlet import errors

    codes: dict[type[MartletError], ExitCode] = {
        errors.BuildFailed: ExitCode.FUNCTION_FAILED,
        errors.BadRequest: ExitCode.USAGE,
        errors.NotFound: ExitCode.NOT_FOUND,
        errors.Unauthenticated: ExitCode.REFUSED,
        errors.Forbidden: ExitCode.REFUSED,
        errors.FunctionError: ExitCode.FUNCTION_FAILED,
        errors.RateLimited: ExitCode.BUSY,
        errors.Overloaded: ExitCode.BUSY,
        errors.Unavailable: ExitCode.BUSY,
    }
    return next((codes[base] for base in kind.__mro__ if base in codes), ExitCode.FAILED)
