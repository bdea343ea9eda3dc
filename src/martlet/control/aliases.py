"""``/functions/{name}/aliases``: names that lead to chosen revisions, in chosen shares."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from martlet.control.caller import Who
from martlet.control.functions import find
from martlet.control.parameters import OF_FUNCTION, AliasPath, Name, Platform
from martlet.errors import FunctionNotFound
from martlet.model import Alias, Frozen, Integer
from martlet.validation import validated

router = APIRouter(tags=["aliases"])


RevisionKey = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")]
Percent = Annotated[Integer, Field(ge=0, le=100)]


class Weights(Frozen):
    """Which share of the requests each revision gets, in percent."""

    weights: dict[RevisionKey, Percent] = Field(
        min_length=1,
        max_length=10,
        examples=[{"3": 90, "4": 10}],
        json_schema_extra={"additionalProperties": False},
    )


@router.get("/functions/{name}/aliases", responses=OF_FUNCTION)
async def list_aliases(platform: Platform, who: Who, name: Name) -> list[Alias]:
    """Lists the aliases of a function, by name."""
    who.check(name)
    find(platform, name)
    aliases = platform.view.aliases.get(name, {})
    return [aliases[alias] for alias in sorted(aliases)]


@router.get("/functions/{name}/aliases/{alias}", responses=OF_FUNCTION)
async def get_alias(platform: Platform, who: Who, name: Name, alias: AliasPath) -> Alias:
    """Describes one alias."""
    who.check(name)
    find(platform, name)
    found = platform.view.aliases.get(name, {}).get(alias)
    if found is None:
        raise FunctionNotFound(f"there is no alias '{name}@{alias}'")
    return found


@router.put("/functions/{name}/aliases/{alias}", responses=OF_FUNCTION)
async def put_alias(platform: Platform, who: Who, name: Name, alias: AliasPath, body: Weights) -> Alias:
    """Makes an alias, or leads it elsewhere."""
    who.check(name)
    made = validated(Alias, {"function": name, "name": alias, "weights": body.weights})
    async with platform.publishing.lock(name):
        await platform.publishing.put_alias(made)
    return made


@router.delete("/functions/{name}/aliases/{alias}", status_code=204, responses=OF_FUNCTION)
async def delete_alias(platform: Platform, who: Who, name: Name, alias: AliasPath) -> None:
    """Deletes an alias; the revisions stay."""
    who.check(name)
    async with platform.publishing.lock(name):
        await platform.publishing.delete_alias(name, alias)
