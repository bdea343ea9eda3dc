"""How things are called."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

FUNCTION_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
ALIAS_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
IMAGE_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
IMAGE_REFERENCE = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?(@[0-9a-f]{64})?$"
"""An image by its name, or one that had this name once by name and digest: ``shop@9f86…``."""
FunctionName = Annotated[str, StringConstraints(pattern=FUNCTION_NAME)]
AliasName = Annotated[str, StringConstraints(pattern=ALIAS_NAME)]
NAME_RULES = {
    FUNCTION_NAME: "1 to 63 of a-z, 0-9 and -, without - at either end",
    ALIAS_NAME: "1 to 63 of a-z, 0-9 and -, beginning with a letter, without - at the end",
    IMAGE_NAME: "1 to 63 of a-z, 0-9, ., _ and -, with a letter or digit at either end",
    IMAGE_REFERENCE: "that of an image, as `martlet images list` shows it",
}
"""What to write by each pattern, in words."""
