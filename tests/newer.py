"""What a version yet to come would write: every model has a member that this one does not know."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import BaseModel

MEMBER = "of_the_future"


def newer(thing: BaseModel) -> bytes:
    """Returns a model as JSON, with the member in it and in all that it is made of."""
    return orjson.dumps(_newer(thing.model_dump(mode="json"), thing))


def _newer(document: Any, thing: Any) -> Any:
    match thing:
        case BaseModel():
            known = {name: _newer(document[name], getattr(thing, name)) for name in type(thing).model_fields}
            return {**known, MEMBER: {"any": ["thing"]}}
        case list() | tuple() if isinstance(document, list):
            return [_newer(*pair) for pair in zip(document, thing, strict=True)]
        case _:
            return document
