"""The reference of the configuration, from the fields of its models."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, PlainValidator
from pydantic.fields import FieldInfo

from martlet.bucket import parse_bucket
from martlet.config import CONFIG_FILE_VARIABLE, ENVIRONMENT
from martlet.model import FunctionConfig
from martlet.peer_address import parse_peer
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE, parse_queue
from martlet.settings import DeclaredFunction, SystemSettings
from martlet.store_address import PASSWORD_VARIABLE, parse_store
from martlet.units import format_bytes, format_millicores, parse_bytes, parse_millicores, parse_rate
from scripts.docs.markdown import code, described, table

Write = Callable[[Any], str]

HEADINGS = ("key", "value", "default", "meaning")
BOUNDS = (("ge", "from"), ("gt", "over"), ("le", "to"))
UNITS: dict[Any, tuple[str, Write]] = {
    parse_bucket: ("address", str),
    parse_peer: ("`HOST:PORT`", str),
    parse_bytes: ("size", format_bytes),
    parse_millicores: ("CPU", format_millicores),
    parse_queue: ("`sqlite`, address of Redis", str),
    parse_rate: ("rate", str),
    parse_store: ("`sqlite`, address of etcd", str),
}
KINDS: dict[Any, str] = {
    bool: "`true`, `false`",
    dict: "table",
    float: "number",
    IPv4Network: "network",
    int: "number",
    Path: "path",
    str: "text",
    tuple: "list",
}


def system() -> str:
    """Returns the table of the keys of ``system:``."""
    return _table(SystemSettings)


def function() -> str:
    """Returns the table of the keys of a function."""
    return _table(FunctionConfig)


def declared() -> str:
    """Returns the table of the keys that only functions in the configuration file have."""
    return _table(DeclaredFunction, without=FunctionConfig)


def environment() -> str:
    """Returns the table of the environment variables."""
    rows = [(code(name), f"sets {code(f'system.{key}')}") for name, key in ENVIRONMENT.items()]
    return table(
        ("variable", "meaning"),
        [
            (code(CONFIG_FILE_VARIABLE), "the configuration file, where `-c` names none"),
            *rows,
            (code(PASSWORD_VARIABLE), "the password of the user in `system.store`"),
            (code(QUEUE_PASSWORD_VARIABLE), "the password of the Redis in `system.queue`"),
        ],
    )


def _table(model: Any, without: Any = None) -> str:
    known = without.model_fields if without else {}
    fields = {name: field for name, field in model.model_fields.items() if name not in known}
    defaults = {name: field.get_default() for name, field in fields.items() if field.default_factory is None}
    plain = model.model_construct(**defaults).model_dump(mode="json", include=set(defaults))
    return table(
        HEADINGS,
        [
            (code(name), _values(field), _default(plain.get(name)), described(field.description, name))
            for name, field in fields.items()
        ],
    )


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float) and value.is_integer():
        return code(int(value))
    return "" if value in (None, [], {}) else code(value)


def _values(field: FieldInfo) -> str:
    """Says what may be written: the kind of value and its bounds."""
    kind, write = _kind(field)
    limits = {
        name: getattr(each, name) for each in field.metadata for name, _ in BOUNDS if hasattr(each, name)
    }
    bounds = " ".join(f"{word} {write(limits[name])}" for name, word in BOUNDS if name in limits)
    return f"{kind}, {bounds}" if bounds else kind


def _kind(field: FieldInfo) -> tuple[str, Write]:
    annotation, metadata = field.annotation, list(field.metadata)
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
        metadata += getattr(annotation, "__metadata__", ())
    for each in metadata:
        if isinstance(each, BeforeValidator | PlainValidator) and each.func in UNITS:
            return UNITS[each.func]
    if get_origin(annotation) is Literal:
        return ", ".join(map(code, get_args(annotation))), str
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return ", ".join(map(code, annotation)), str
    return KINDS[get_origin(annotation) or annotation], "{:g}".format
