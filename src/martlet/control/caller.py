"""Who calls: the gateway has checked the key, and says in headers whose it is and what it may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from martlet.errors import Forbidden
from martlet.model import Scope


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key.

    Attributes:
        key: the key's id; empty for a request that came without the gateway, so from this machine's root.
        scopes: what the key may do.
        functions: the only functions it may see; None: all.
    """

    key: str
    scopes: frozenset[str]
    functions: frozenset[str] | None

    def check(self, function: str) -> None:
        """Raises `Forbidden` if the key is limited to other functions."""
        if self.functions is not None and function not in self.functions:
            raise Forbidden(f"this key is limited to other functions than {function!r}")

    def check_unlimited(self, what: str) -> None:
        """Raises `Forbidden` if the key is limited to some functions, and ``what`` concerns all of them."""
        if self.functions is not None:
            raise Forbidden(f"this key is limited to some functions and may not {what}")

    def sees(self, function: str) -> bool:
        """Whether a list for this caller includes what belongs to the function."""
        return self.functions is None or function in self.functions


def caller_of(request: Request) -> Caller:
    """Reads the headers that the gateway sets, and never lets through from outside."""
    functions = request.headers.get("x-martlet-functions")
    return Caller(
        key=request.headers.get("x-martlet-key", ""),
        scopes=_words(request.headers.get("x-martlet-scopes", ",".join(Scope))),
        functions=None if functions is None else _words(functions),
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.split(",") if word)


Who = Annotated[Caller, Depends(caller_of)]
