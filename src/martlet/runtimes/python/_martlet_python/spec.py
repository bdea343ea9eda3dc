"""What a cell is told to become: the body of ``POST /_martlet/specialise``."""

from __future__ import annotations

from typing import Any, NamedTuple


class Spec(NamedTuple):
    """One revision as its runtime needs to know it.

    Attributes:
        function: its name.
        revision: its number, as text.
        code: the folder with the user's code.
        dependencies: the folder with the installed packages, or None.
        handler: the callable to run, in one of the spellings that `loader` knows.
        environment: the function's own variables.
        concurrency: requests that run at once.
        max_body: bytes a request body may have.
        template: whether to be forked from instead of serving.
    """

    function: str
    revision: str
    code: str
    dependencies: str | None
    handler: str
    environment: dict[str, str]
    concurrency: int
    max_body: int
    template: bool = False

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Spec:
        """Reads the members it knows and leaves the driver's own alone.

        Raises:
            KeyError: a member is missing.
        """
        return cls(
            function=str(document["function"]),
            revision=str(document["revision"]),
            code=document["code"],
            dependencies=document["dependencies"],
            handler=document["handler"],
            environment=document["environment"],
            concurrency=document["concurrency"],
            max_body=document["max_body"],
            template=document.get("template", False),
        )
