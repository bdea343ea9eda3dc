"""Documents of users as models, or one sentence that names what is wrong in them."""

from __future__ import annotations

from types import NoneType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from martlet.errors import Invalid

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], document: Any, prefix: str = "") -> Model:
    """Returns ``model`` made from ``document``.

    Raises:
        Invalid: the first fault, as one sentence; ``field`` is its dotted path behind ``prefix``.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(
            [prefix, *(str(part) for part in fault["loc"])] if prefix else map(str, fault["loc"])
        )
        reason = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            reason = f"there is no such key; known are {', '.join(_fields_at(model, fault['loc'][:-1]))}"
        raise Invalid(f"{field or 'the document'}: {reason}", field=field or None) from None


def _fields_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        known = getattr(model, "model_fields", {})
        annotation = known[part].annotation if part in known else model
        arguments = [each for each in getattr(annotation, "__args__", ()) if each not in (NoneType, ...)]
        model = arguments[-1] if arguments else annotation
    return sorted(field.alias or name for name, field in getattr(model, "model_fields", {}).items())
