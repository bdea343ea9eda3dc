"""What the store holds and under which keys (see docs/design.md): nobody else knows the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from martlet.errors import FunctionNotFound, NotFound
from martlet.model import (
    Alias,
    ApiKey,
    Build,
    Division,
    Draft,
    Drain,
    Frozen,
    Function,
    Node,
    Revision,
    Waiting,
)

Model = TypeVar("Model", bound=Frozen)


@dataclass(frozen=True, slots=True)
class Resource(Generic[Model]):
    """A kind of thing: what people call it, its folder in the store, its model, what is raised without it."""

    noun: str
    folder: str
    model: type[Model]
    missing: type[NotFound] = NotFound

    def key(self, *path: str | int) -> str:
        """Returns the key of the thing that ``path`` names; an empty last part makes it a prefix."""
        return "/".join(
            ["", self.folder, *(f"{part:08}" if isinstance(part, int) else part for part in path)]
        )

    def read(self, value: bytes) -> Model:
        """Returns the thing that `write` wrote, in this version or another. Raises ValueError for anything else."""
        return self.model.read(value)

    def write(self, thing: Model) -> bytes:
        """Returns the thing as the store keeps it."""
        return thing.model_dump_json().encode()


FUNCTIONS = Resource("function", "functions", Function, FunctionNotFound)
REVISIONS = Resource("revision", "revisions", Revision, FunctionNotFound)
ALIASES = Resource("alias", "aliases", Alias, FunctionNotFound)
KEYS = Resource("key", "keys", ApiKey)
DRAFTS = Resource("function", "drafts", Draft, FunctionNotFound)
BUILDS = Resource("build", "builds", Build)
NODES = Resource("node", "nodes", Node)
DRAINS = Resource("drain of node", "drains", Drain)
DIVISIONS = Resource("division", "divisions", Division)
WAITING = Resource("waiting deploy", "waiting", Waiting)
