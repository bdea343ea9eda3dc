"""``/cluster/join``: how other machines get a certificate of the cluster. Their token is the key they need."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import Field

from martlet.cluster.identity import Identity
from martlet.control.parameters import Platform, problems
from martlet.control.system import OPEN
from martlet.errors import Conflict
from martlet.model import Frozen

router = APIRouter(tags=["platform"])


class Joining(Frozen):
    """What a machine sends that has a token (`martlet cluster join` does it)."""

    token: str = Field(pattern=r"^[0-9]{1,12}\.[0-9a-f]{16}$", description="The public part of the token.")
    request: str = Field(max_length=4096, description="The request for a certificate, as PEM.")
    signature: str = Field(
        pattern=r"^[0-9a-f]{64}$", description="What proves that the sender has the token."
    )


class Admission(Frozen):
    """Certificates as PEM, and what proves that the sender has the token."""

    authority: str
    certificate: str
    signature: str


@router.post("/cluster/join", responses=problems(Conflict), openapi_extra=OPEN)
async def join_cluster(platform: Platform, body: Joining) -> Admission:
    """Gives a machine that has a token the certificate with which it is of the cluster."""
    from martlet.cluster.joining import admit  # control starts sooner without it

    identity = Identity(platform.settings.system.function_storage_path)
    authority, certificate, signature = await asyncio.to_thread(
        admit, identity, body.token, body.request, body.signature
    )
    return Admission(authority=authority, certificate=certificate, signature=signature)
