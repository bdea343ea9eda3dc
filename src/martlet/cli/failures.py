"""What a person reads when a command fails: one sentence, what to do next, and the exit code."""

from __future__ import annotations

from typing import NamedTuple

from martlet import errors
from martlet.cli.exits import ExitCode, exit_code_of
from martlet.client import ApiError, ClientError, Unreachable

NEXT_STEPS: dict[type[errors.MartletError], str] = {
    errors.BuildFailed: "mend it and deploy again; what served before still does",
    errors.Unauthenticated: "set MARTLET_KEY to a key of this platform (admin-key, in development mode)",
    errors.Forbidden: "use another key (MARTLET_KEY), or make one with `martlet keys create`",
    errors.BodyTooLarge: "send less (.martletignore keeps files out of a deploy), or raise system.max_body",
    errors.FunctionNotFound: "`martlet list` shows the functions, `martlet revisions NAME` what one has",
    errors.FunctionError: "`martlet logs NAME` shows what the function printed",
    errors.FunctionTimeout: "raise its timeout with `martlet deploy --timeout`, or let it do less",
    errors.FunctionOutOfMemory: "raise its limit with `martlet deploy --memory`, or let it hold less",
    errors.MartletError: "the log of the platform has more under that request id",
}


EXPECTED = (ClientError, errors.MartletError)
"""Errors that are shown as a sentence."""


class Failure(NamedTuple):
    """A failure as it is shown."""

    sentence: str
    next_step: str | None
    code: ExitCode


def explain(error: ClientError | errors.MartletError) -> Failure:
    """Returns how to show an error. Any other exception is a fault of ours and deserves its traceback."""
    match error:
        case Unreachable():
            return Failure(str(error), None, ExitCode.UNREACHABLE)
        case ApiError():
            return _of_platform(error)
        case errors.MartletError():
            return Failure(error.detail, None, exit_code_of(type(error)))
    return Failure(str(error), None, ExitCode.USAGE)


def _of_platform(error: ApiError) -> Failure:
    sentence = error.detail
    if error.status >= 500 and error.request_id:
        sentence += f" (request id {error.request_id})"
    if error.retry_after is not None:
        return Failure(sentence, f"try again in {error.retry_after:g} s", exit_code_of(error.kind))
    next_step = next((NEXT_STEPS[base] for base in error.kind.__mro__ if base in NEXT_STEPS), None)
    if next_step is NEXT_STEPS[errors.MartletError] and error.status < 500:
        next_step = None
    return Failure(sentence, next_step, exit_code_of(error.kind))
