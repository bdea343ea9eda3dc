"""What requests of the management API carry, as FastAPI is told of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query

from martlet.control.control import Control, control_of
from martlet.control.machines import MISSING_HEADER
from martlet.errors import (
    PROBLEM_CONTENT_TYPE,
    BadRequest,
    BodyTooLarge,
    Conflict,
    Forbidden,
    FunctionLoadFailed,
    Invalid,
    MartletError,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from martlet.model import ALIAS_NAME, FUNCTION_NAME

PROBLEM = {PROBLEM_CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}

Platform = Annotated[Control, Depends(control_of)]
Name = Annotated[str, Path(pattern=FUNCTION_NAME, description="The function.")]
AliasPath = Annotated[str, Path(pattern=ALIAS_NAME, description="The alias.")]
Number = Annotated[int, Path(ge=1, le=10**9, description="The revision.")]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Wait = Annotated[bool, Query(description="Answer when the deploy has ended; else at once, with its build.")]
Upgrade = Annotated[bool, Query(description="Look for newer versions of the dependencies.")]

ALWAYS: tuple[type[MartletError], ...] = (
    BadRequest,
    Unauthenticated,
    Forbidden,
    Invalid,
    RateLimited,
    MartletError,
    Unavailable,
)

Responses = dict[int | str, dict[str, Any]]


def problems(*errors: type[MartletError]) -> Responses:
    """Returns the errors that every request may be answered with, and these, as FastAPI documents responses."""
    return {error.status: {"description": error.title, "content": PROBLEM} for error in (*ALWAYS, *errors)}


OF_FUNCTION = problems(NotFound)
OF_MACHINES: Responses = {
    200: {
        "description": "What all machines have that answer.",
        "headers": {
            MISSING_HEADER: {
                "description": "The ids of machines that do not answer: what they have is left out.",
                "schema": {"type": "string"},
            }
        },
    },
    **OF_FUNCTION,
}
OF_CHANGE = problems(NotFound, Conflict, FunctionLoadFailed)
OF_UPLOAD = problems(NotFound, Conflict, FunctionLoadFailed, BodyTooLarge)
