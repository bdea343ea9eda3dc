"""``/keys``: who may use the platform."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import Field

from martlet.control.caller import Caller, caller_of
from martlet.control.keyring import KeyRequest, NewKey
from martlet.control.parameters import Id, Platform, problems
from martlet.errors import Conflict, NotFound
from martlet.model import ApiKey, Frozen, Scope
from martlet.units import Rate


def _unlimited(who: Caller = Depends(caller_of)) -> None:  # noqa: B008 - how FastAPI is told
    who.check_unlimited("manage keys")


router = APIRouter(tags=["keys"], dependencies=[Depends(_unlimited)])


class KeyView(Frozen):
    """A key without its secret. Times are seconds since the epoch."""

    id: str
    name: str
    scopes: list[Scope]
    functions: list[str] | None
    rate_limit: Rate
    trusted: bool
    created: float
    expires: float | None


class KeyWithSecret(KeyView):
    """A key with its secret, which is shown this once."""

    secret: str


class Rotation(Frozen):
    """How a key gets another secret."""

    overlap: float = Field(
        0, strict=True, ge=0, le=30 * 86_400, description="Seconds that the one before is still accepted."
    )


@router.get("/keys", responses=problems())
async def list_keys(platform: Platform) -> list[KeyView]:
    """Lists all keys, the oldest first."""
    return [KeyView(**_members(key)) for key in await platform.keyring.list()]


@router.post("/keys", status_code=201, responses=problems())
async def create_key(platform: Platform, body: KeyRequest) -> KeyWithSecret:
    """Makes a key and shows its secret, this once."""
    return _with_secret(await platform.keyring.create(body))


@router.post("/keys/{id}/rotate", responses=problems(NotFound))
async def rotate_key(platform: Platform, id: Id, body: Rotation | None = None) -> KeyWithSecret:  # noqa: A002
    """Gives a key another secret and shows it, this once."""
    return _with_secret(await platform.keyring.rotate(id, 0 if body is None else body.overlap))


@router.delete("/keys/{id}", status_code=204, responses=problems(NotFound, Conflict))
async def revoke_key(platform: Platform, id: Id) -> None:  # noqa: A002
    """Makes a key useless, from the next request on."""
    await platform.keyring.revoke(id)


def _with_secret(new: NewKey) -> KeyWithSecret:
    return KeyWithSecret(**_members(new.key), secret=new.secret)


def _members(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "functions": None if key.functions is None else sorted(key.functions),
        "rate_limit": key.rate_limit,
        "trusted": key.trusted,
        "created": key.created,
        "expires": key.expires,
    }
