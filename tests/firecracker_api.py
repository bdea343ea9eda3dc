"""Firecracker's own description of its API: what may be sent and answered, as tests ask for it."""

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import jsonschema_rs
import yaml

DESCRIPTION = Path(__file__).parent / "data" / "firecracker" / "firecracker.yaml"
_METHODS = ("get", "put", "patch")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Reads ``Off`` as the word that it is."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for."""

    id: str
    method: str
    path: str
    request: dict[str, Any] | None
    """The schema of the body; None: there is none."""
    answers: dict[str, dict[str, Any] | None]
    """The schema of the answer's body by status, or ``default``."""


class Description:
    """The description. It closes no object; Firecracker refuses unknown members all the same, and so does `closed`."""

    def __init__(self) -> None:
        self._document = yaml.load(DESCRIPTION.read_text(), _Loader)
        self._validators: dict[str, Any] = {}
        self.definitions: dict[str, Any] = self._document["definitions"]
        for definition in self.definitions.values():
            for member in definition.get("properties", {}).values():
                if str(member.get("format", "")).startswith("169"):
                    member["pattern"] = f"^({member.pop('format')})$"

    @cached_property
    def closed(self) -> dict[str, Any]:
        """The definitions, where an object has no members but those described."""
        return {
            name: {**definition, "additionalProperties": False} if "properties" in definition else definition
            for name, definition in self.definitions.items()
        }

    @cached_property
    def operations(self) -> list[Operation]:
        return [
            Operation(
                said["operationId"],
                method.upper(),
                path,
                next((each["schema"] for each in said.get("parameters", ()) if each["in"] == "body"), None),
                {str(status): answer.get("schema") for status, answer in said["responses"].items()},
            )
            for path, item in self._document["paths"].items()
            for method, said in item.items()
            if method in _METHODS
        ]

    def find(self, method: str, path: str) -> Operation | None:
        for operation in self.operations:
            pattern = re.sub(r"\{[a-z_]+\}", "[A-Za-z0-9_]+", operation.path)
            if operation.method == method and re.fullmatch(pattern, path):
                return operation
        return None

    def schema(self, name: str) -> dict[str, Any]:
        return {"$ref": f"#/definitions/{name}"}

    def faults(self, schema: dict[str, Any] | None, document: Any, *, closed: bool = False) -> list[str]:
        """Returns what is wrong with a body."""
        if schema is None:
            return [] if document is None else ["there is a body and should be none"]
        key = json.dumps([schema, closed])
        if key not in self._validators:
            definitions = self.closed if closed else self.definitions
            # A reference may have no neighbours in this draft of JSON Schema.
            wrapped = {"allOf": [schema], "definitions": definitions}
            self._validators[key] = jsonschema_rs.Draft4Validator(wrapped)
        validator = self._validators[key]
        return [error.message for error in validator.iter_errors(document)]


@cache
def description() -> Description:
    """Returns the description, which takes a while to read."""
    return Description()
