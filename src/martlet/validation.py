"""Documents of users as models, or one sentence that names what is wrong in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar

from pydantic import BaseModel, PlainSerializer, ValidationError

from martlet.errors import Invalid
from martlet.model.names import NAME_RULES

Model = TypeVar("Model", bound=BaseModel)
Location = Sequence[int | str]
Write = Callable[[Any], str]

KEY = "[key]"
"""What pydantic ends a location with where a key of a table is at fault, and not its value."""
LONGEST_SHOWN = 60
"""Characters of a value that a sentence repeats."""
_SENTENCES = {
    "missing": "it is missing",
    "int_type": "{value} is not a whole number",
    "int_parsing": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "float_parsing": "{value} is not a number",
    "bool_type": "{value} is neither true nor false",
    "bool_parsing": "{value} is neither true nor false",
    "string_type": "{value} is not a text",
    "tuple_type": "{value} is not a list",
    "frozen_set_type": "{value} is not a list",
    "dict_type": "{value} is not a table, with keys and their values",
    "model_type": "{value} is not a table, with keys and their values",
    "model_attributes_type": "{value} is not a table, with keys and their values",
    "enum": "{value} is none of {expected}",
    "literal_error": "{value} is none of {expected}",
    "greater_than_equal": "{value} is too little: write {ge} or more",
    "greater_than": "{value} is too little: write more than {gt}",
    "less_than_equal": "{value} is too much: write {le} or less",
    "less_than": "{value} is too much: write less than {lt}",
    "too_short": "there must be {min_length} or more, and there are {actual_length}",
    "too_long": "there may be {max_length} at most, and there are {actual_length}",
}
"""What is said of the faults that pydantic tells apart; of others, what it says itself."""
_LIMITS = ("ge", "gt", "le", "lt")


def validated(model: type[Model], document: Any, prefix: str = "") -> Model:
    """Returns ``model`` made from ``document``.

    Raises:
        Invalid: the first fault, as one sentence; ``field`` is its dotted path behind ``prefix``.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        location = tuple(part for part in fault["loc"] if part != KEY)
        field = ".".join(map(str, (prefix, *location) if prefix else location))
        if fault["type"] == "extra_forbidden":
            reason = _no_such_key(str(location[-1]), _keys_at(model, location[:-1]))
        else:
            written = _at(document, location) if location == fault["loc"] else location[-1]
            reason = in_words({**fault, "input": written}, _writer(model, location))
        raise Invalid(f"{field}: {reason}" if field else reason, field=field or None) from None


def in_words(fault: Mapping[str, Any], write: Write | None = None) -> str:
    """Says what is wrong with a value, and what to write instead.

    Args:
        fault: as pydantic describes it.
        write: writes the limits of the value as people do (``16Mi``).
    """
    context = fault.get("ctx", {})
    if fault["type"] == "string_pattern_mismatch" and context["pattern"] in NAME_RULES:
        return f"{_shown(fault['input'])} is not a name: write {NAME_RULES[context['pattern']]}"
    sentence = _SENTENCES.get(fault["type"])
    if sentence is None:
        return str(fault["msg"]).removeprefix("Value error, ")
    limits = {key: (write or _number)(context[key]) for key in _LIMITS if key in context}
    return sentence.format(value=_shown(fault["input"]), **{**context, **limits})


def _shown(value: Any) -> str:
    """Returns the beginning of a value as it was written, whatever its size and depth."""
    if isinstance(value, str):
        text = repr(value[: LONGEST_SHOWN + 1])
    else:
        text = ""
        try:
            for piece in json.JSONEncoder(default=str).iterencode(value):
                text += piece
                if len(text) > LONGEST_SHOWN:
                    break
        except ValueError:  # Python writes no number of thousands of digits
            return "such a number"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)


def _no_such_key(key: str, known: list[str]) -> str:
    meant = get_close_matches(key, known, n=1)
    hint = f"did you mean {meant[0]}?" if meant else f"known are {', '.join(known)}"
    return f"there is no such key; {hint}"


def _at(document: Any, location: Location) -> Any:
    """Returns what was written at a place of a document; None where there is no such place."""
    for part in location:
        try:
            document = document[part]
        except (LookupError, TypeError):
            return None
    return document


def _keys_at(model: Any, location: Location) -> list[str]:
    for part in location:
        model = _inner(_annotation(model, part))
    return sorted(field.alias or name for name, field in getattr(model, "model_fields", {}).items())


def _writer(model: Any, location: Location) -> Write | None:
    """Returns what writes the values of a field, where its type says so: sizes with their unit, say."""
    for part in location[:-1]:
        model = _inner(_annotation(model, part))
    field = getattr(model, "model_fields", {}).get(location[-1]) if location else None
    for each in () if field is None else (*field.metadata, *_metadata(field.annotation)):
        if isinstance(each, PlainSerializer):
            return each.func  # type: ignore[return-value]
    return None


def _annotation(model: Any, part: int | str) -> Any:
    known = getattr(model, "model_fields", {})
    return known[part].annotation if part in known else model


def _inner(annotation: Any) -> Any:
    """Returns what an optional value is, or what a container has."""
    arguments = [each for each in getattr(annotation, "__args__", ()) if each not in (NoneType, ...)]
    return arguments[-1] if arguments else annotation


def _metadata(annotation: Any) -> Iterator[Any]:
    for each in getattr(annotation, "__args__", ()):
        yield from getattr(each, "__metadata__", ())
