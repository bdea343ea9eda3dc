"""``/functions``: made, listed, changed, deleted."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response

from martlet.builder.builds import CANCELLED
from martlet.control.caller import Caller, Who
from martlet.control.control import Control
from martlet.control.deploy import Deploy, Expect, discard
from martlet.control.parameters import OF_FUNCTION, OF_UPLOAD, Name, Platform, Responses, Upgrade, Wait
from martlet.control.upload import read_archive, read_change, read_function
from martlet.errors import BuildFailed, Conflict, Forbidden, FunctionNotFound
from martlet.model import (
    FUNCTION_NAME,
    Build,
    BuildState,
    Digest,
    Frozen,
    Function,
    FunctionConfig,
    FunctionState,
)
from martlet.storage.queue import QueueError

router = APIRouter(tags=["functions"])

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class FunctionView(Frozen):
    """A function as it serves now.

    ``latest`` is the revision that serves; ``config``, ``code`` and ``dependencies`` are its. ``state`` is
    ``failed`` where the last deploy failed, so that the one before serves on. Times are seconds since the epoch.
    """

    name: str
    latest: int
    state: FunctionState
    url: str
    config: FunctionConfig
    code: Digest
    dependencies: Digest | None
    created: float
    updated: float


class Deployed(FunctionView):
    """A function after a deploy: the build that this was, and the revision it made (``unchanged``: that it found)."""

    build: str
    revision: int
    unchanged: bool


DEPLOYED: Responses = {
    202: {"model": Build, "description": "The deploy has begun (`wait=false`)."},
    **OF_UPLOAD,
}
CREATED: Responses = {201: {"model": Deployed, "description": "It serves."}, **DEPLOYED}


def _json_or_form(name: str, required: list[str]) -> dict[str, Any]:
    """Describes a body that is JSON, or a form with an archive."""
    part = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": FUNCTION_NAME},
            "config": {"type": "object", "description": "As JSON."},
            "archive": part | {"description": "A zip, a tar.gz or a tar, as a file."},
        },
        "required": required,
        "additionalProperties": False,
    }
    content = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}},
        "multipart/form-data": {"schema": form, "encoding": {"config": {"contentType": "application/json"}}},
    }
    return {"requestBody": {"required": True, "content": content}}


ARCHIVE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/functions", responses=OF_FUNCTION)
async def list_functions(platform: Platform, who: Who, request: Request) -> list[FunctionView]:
    """Lists the functions that the key may see, by name."""
    functions = sorted(platform.view.functions.values(), key=lambda function: function.name)
    return [view(platform, function, request) for function in functions if who.sees(function.name)]


@router.get("/functions/{name}", responses=OF_FUNCTION)
async def get_function(platform: Platform, who: Who, request: Request, name: Name) -> FunctionView:
    """Describes one function."""
    who.check(name)
    return view(platform, find(platform, name), request)


@router.post(
    "/functions",
    status_code=201,
    response_model=None,
    responses=CREATED,
    openapi_extra=_json_or_form("FunctionBody", ["name", "archive"]),
)
async def create_function(
    platform: Platform, who: Who, request: Request, wait: Wait = True, upgrade: Upgrade = False
) -> Response:
    """Makes a function, from JSON with its code or from a form with an archive."""
    name, source, config = await read_function(request, platform.uploads)
    deploy = Deploy(name, source, config, Expect.ABSENT, upgrade=upgrade)
    return await _answer(platform, who, request, deploy, wait, 201)


@router.put(
    "/functions/{name}",
    response_model=None,
    responses={200: {"model": Deployed, "description": "It serves."}, **DEPLOYED},
    openapi_extra=_json_or_form("ChangeBody", []),
)
async def change_function(
    platform: Platform, who: Who, request: Request, name: Name, wait: Wait = True, upgrade: Upgrade = False
) -> Response:
    """Makes a new revision of a function with other code, other keys of the configuration, or both."""
    given, source, config = await read_change(request, platform.uploads)
    deploy = Deploy(name, source, config, Expect.PRESENT, upgrade=upgrade)
    if given not in (None, name):
        discard(deploy)
        raise Conflict(f"a function cannot be renamed (from {name!r} to {given!r})", field="name")
    return await _answer(platform, who, request, deploy, wait, 200)


@router.put(
    "/functions/{name}/code",
    response_model=None,
    responses={200: {"model": Deployed, "description": "It serves."}, **DEPLOYED},
    openapi_extra=ARCHIVE,
)
async def change_code(
    platform: Platform, who: Who, request: Request, name: Name, wait: Wait = True, upgrade: Upgrade = False
) -> Response:
    """Makes a new revision of a function from an archive: a zip, a tar.gz or a tar."""
    who.check(name)
    find(platform, name)
    source = await read_archive(request, platform.uploads)
    deploy = Deploy(name, source, {}, Expect.PRESENT, upgrade=upgrade)
    return await _answer(platform, who, request, deploy, wait, 200)


@router.delete("/functions/{name}", status_code=204, responses=OF_FUNCTION)
async def delete_function(platform: Platform, who: Who, name: Name) -> None:
    """Deletes a function with its revisions, aliases, logs and history; requests under way are finished."""
    who.check(name)
    await platform.deployments.delete(name)
    with suppress(QueueError):  # whoever takes what waits finds that there is no function
        await platform.invocations.forget(name)


def find(platform: Control, name: str) -> Function:
    """Returns a function. Raises `FunctionNotFound`."""
    function = platform.view.functions.get(name)
    if function is None:
        raise FunctionNotFound(f"there is no function {name!r}")
    return function


def view(platform: Control, function: Function, request: Request) -> FunctionView:
    """Returns a function as people see it."""
    return FunctionView(**_members(platform, function, request))


def _members(platform: Control, function: Function, request: Request) -> dict[str, Any]:
    revision = platform.view.revisions[function.name, function.latest]
    last = platform.builds.last(function.name)
    failed = last is not None and last.state is BuildState.FAILED and (last.finished or 0) > function.updated
    return {
        "name": function.name,
        "latest": function.latest,
        "state": FunctionState.FAILED if failed else FunctionState.READY,
        "url": f"{_address(platform, request)}/invoke/{function.name}",
        "config": revision.config,
        "code": revision.code,
        "dependencies": revision.dependencies,
        "created": function.created,
        "updated": function.updated,
    }


def _address(platform: Control, request: Request) -> str:
    """Returns how the client reaches the platform: as it did now, over TLS too, or else as the settings say."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        system = platform.settings.system
        host = f"[{system.host}]" if ":" in system.host else system.host
        host = f"{host}:{system.api_gateway_port}"
    scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else "http"
    return f"{scheme}://{host}"


async def _answer(
    platform: Control, who: Caller, request: Request, deploy: Deploy, wait: bool, status: int
) -> Response:
    """Deploys, and answers with the function, or with the build where nobody waits."""
    try:
        who.check(deploy.name)
    except Forbidden:
        discard(deploy)
        raise
    build = await platform.deployments.begin(deploy)
    if not wait:
        location = f"/builds/{build.build.id}"
        return _json(build.build, 202, {"location": location})
    try:
        outcome = await asyncio.shield(build.task)
    except asyncio.CancelledError:
        if build.task.cancelled():  # and not this request
            raise BuildFailed(CANCELLED, extra={"build": build.build.id}) from None
        raise
    members = _members(platform, find(platform, deploy.name), request)
    return _json(
        Deployed(**members, build=build.build.id, revision=outcome.revision, unchanged=outcome.unchanged),
        status,
    )


def _json(model: Frozen, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, headers, "application/json")
