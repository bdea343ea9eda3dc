"""``martlet.yaml``: the name and the configuration of a function, beside its code.

    name: hello
    memory: 64Mi
    dependencies:
      - requests==2.32.3

Its keys are those of a function's configuration, and ``name``. It says all there is to say: a key that is
taken out of it has its default again at the next deploy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from martlet.client.deploy import ARCHIVES
from martlet.errors import Invalid
from martlet.model import FUNCTION_NAME, FunctionConfig, FunctionName
from martlet.validation import validated

FILE = "martlet.yaml"


OF_THE_PLATFORM = frozenset({"execution_mode", "network", "runtime"})
"""Keys whose default the platform decides, so a manifest that does not have them leaves them alone."""


class Manifest(FunctionConfig):
    """What ``martlet.yaml`` may say."""

    name: FunctionName | None = Field(None, description="The function's name; that of the folder by default.")

    @property
    def config(self) -> dict[str, Any]:
        """The whole configuration, as the API takes it."""
        return self.model_dump(mode="json", exclude={"name"} | (OF_THE_PLATFORM - self.model_fields_set))

    @property
    def given(self) -> dict[str, Any]:
        """Only the keys that are there, as the API takes them."""
        return self.model_dump(mode="json", exclude={"name"}, exclude_unset=True)


def read_manifest(source: Path) -> Manifest | None:
    """Returns the manifest of a function: in the folder, or beside the file; None where there is none.

    Raises:
        Invalid: it is not YAML, or has a value that is not allowed; ``field`` names it.
    """
    path = (source if source.is_dir() else source.parent) / FILE
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise Invalid(f"{path} is not YAML: {error}") from None
    return manifest_of(document or {}, str(path))


def manifest_of(document: Any, origin: str) -> Manifest:
    """Validates what a manifest, or the options of a command, say.

    Raises:
        Invalid: the first fault, with its ``origin``.
    """
    if not isinstance(document, dict):
        raise Invalid(f"{origin} must hold a table, with keys such as name and memory")
    try:
        return validated(Manifest, document)
    except Invalid as fault:
        raise Invalid(f"{origin}: {fault.detail}", field=fault.field) from None


def name_of(source: Path) -> str:
    """Returns the name of a function that has been given none: that of its folder, or of its file.

    Raises:
        Invalid: no name can be made of it.
    """
    path = source.resolve()
    suffix = next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), path.suffix)
    stem = path.name.removesuffix(suffix) if path.is_file() else path.name
    if stem == "handler" and path.is_file():
        stem = path.parent.name
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    if not re.fullmatch(FUNCTION_NAME, name):
        raise Invalid(
            f"no name can be made of {stem!r}: give one with --name, or as name: in {FILE}", field="name"
        )
    return name
