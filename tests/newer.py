"""What a version yet to come would write: every model has a member that this one does not know."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

import martlet

MEMBER = "of_the_future"
VERSION = "99.0.0"
_MODEL = re.compile(r'^class (?!InvocationView)\w+\(Frozen\):\n    """(?:.|\n)*?"""\n', re.MULTILINE)


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


def install(folder: Path) -> Path:
    """Copies the platform as it is here to where it is a newer version; returns what PYTHONPATH has to name.

    `InvocationView` has no further member there: it would take a column in the history.
    """
    source = Path(martlet.__file__).parent
    shutil.copytree(source, folder / "martlet", ignore=shutil.ignore_patterns("__pycache__"))
    package = folder / "martlet/__init__.py"
    package.write_text(package.read_text().replace(f'"{martlet.__version__}"', f'"{VERSION}"'))
    for file in (folder / "martlet/model").glob("*.py"):
        file.write_text(_MODEL.sub(rf'\g<0>\n    {MEMBER}: str = "any"\n', file.read_text()))
    return folder
