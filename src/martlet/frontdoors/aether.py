"""Aether's API: ``/api/functions``, over the same functions.

An id is the function's name, so that ``/functions/{id}/…`` invokes it as it does for everybody. A function that has
no code yet is a `Draft`; with its code it is a function like any other. What Aether calls a function is a server on a
port, whatever it is written in; where the code is none, it is taken for a handler of the language that was named.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from time import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import Field

from martlet.builder.source import Archive, Source
from martlet.control.caller import Who
from martlet.control.control import Control
from martlet.control.deploy import Deploy, Expect, discard
from martlet.control.functions import FunctionView, find, view
from martlet.control.parameters import Platform
from martlet.control.upload import read_upload
from martlet.errors import BuildFailed, Conflict, FunctionLoadFailed, FunctionNotFound, NotFound
from martlet.model import (
    FUNCTION_NAME,
    Draft,
    EnvironmentValue,
    Frozen,
    FunctionConfig,
    FunctionName,
    Integer,
    InvocationView,
    MiB,
)

router = APIRouter(prefix="/api/functions", include_in_schema=False)

SERVER = "http"
"""The runtime of programs that serve a port."""
PORT = "PORT"
USUAL_PORT = 3000
INVOCATIONS = 100

Id = Annotated[str, Path(pattern=FUNCTION_NAME)]


class Wishes(Frozen):
    """A function, or a change of one, as Aether's clients write it; 0 is what is left out."""

    name: FunctionName | None = None
    runtime: str | None = None
    entrypoint: str | None = None
    vcpu: Integer = Field(0, ge=0, le=256)
    memory_mb: Integer = Field(0, ge=0)
    port: Integer = Field(0, ge=0, le=65535)
    env_vars: dict[str, EnvironmentValue] | None = None

    def config(self, before: FunctionConfig | None) -> dict[str, Any]:
        """Returns the keys of the configuration that they change."""
        keys: dict[str, Any] = {"runtime": self.runtime, "handler": self.entrypoint}
        if self.vcpu:
            keys["cpu_limit"] = f"{1000 * self.vcpu}m"
        if self.memory_mb:
            keys["memory"] = self.memory_mb * MiB
        if self.port or self.env_vars is not None:
            had = {} if before is None else before.environment
            kept = had if self.env_vars is None else {PORT: had[PORT]} if PORT in had else {}
            keys["environment"] = {**kept, **(self.env_vars or {})}
            if self.port:
                keys["environment"][PORT] = str(self.port)
        return {key: value for key, value in keys.items() if value is not None}


class NewFunction(Wishes):
    """What a new function needs."""

    name: FunctionName
    runtime: str


class AetherFunction(Frozen):
    """A function as Aether describes it; ``state`` is Martlet's, and ``created`` before there is code."""

    id: str
    name: str
    runtime: str
    entrypoint: str
    code_path: str
    vcpu: int
    memory_mb: int
    port: int
    env_vars: dict[str, str]
    state: str
    created_at: str
    updated_at: str


class AetherInvocation(Frozen):
    """One finished run of a function as Aether describes it."""

    id: str
    function_id: str
    status: str
    duration_ms: int
    started_at: str
    error_message: str | None


class Uploaded(Frozen):
    """What Aether answers to code."""

    message: str = "code uploaded"
    code_path: str


@router.post("", status_code=201)
async def create(platform: Platform, who: Who, request: Request, body: NewFunction) -> AetherFunction:
    """Makes a function that has no code yet."""
    who.check(body.name)
    if body.name in platform.view.functions:
        raise Conflict(f"there is a function {body.name!r} already", field="name")
    config = platform.configuration.changed(None, body.config(None))
    draft = Draft(name=body.name, config=config, created=time())
    await platform.registry.put_draft(draft, expect_revision=0)
    return _draft(draft)


@router.get("")
async def list_all(platform: Platform, who: Who, request: Request) -> list[AetherFunction]:
    """Lists the functions that the key may see, by name."""
    drafts = {draft.name: _draft(draft) for draft in await platform.registry.list_drafts()}
    served = {name: _function(platform, name, request) for name in platform.view.functions}
    return [function for name, function in sorted((drafts | served).items()) if who.sees(name)]


@router.get("/{id}")
async def get(platform: Platform, who: Who, request: Request, id: Id) -> AetherFunction:  # noqa: A002
    """Describes one function."""
    who.check(id)
    if id in platform.view.functions:
        return _function(platform, id, request)
    return _draft(await _find_draft(platform, id))


@router.put("/{id}")
async def change(platform: Platform, who: Who, request: Request, id: Id, body: Wishes) -> AetherFunction:  # noqa: A002
    """Changes what is named of a function."""
    who.check(id)
    if body.name not in (None, id):
        raise Conflict(f"a function cannot be renamed (from {id!r} to {body.name!r})", field="name")
    if id not in platform.view.functions:
        draft = await _find_draft(platform, id)
        config = platform.configuration.changed(draft.config, body.config(draft.config))
        draft = draft.model_copy(update={"config": config})
        await platform.registry.put_draft(draft)
        return _draft(draft)
    before = platform.view.revisions[id, find(platform, id).latest].config
    changes = body.config(before)
    if platform.configuration.changed(before, changes).runtime == before.runtime:
        changes.pop("runtime", None)  # it runs as what it was found to be
    await _deploy(platform, id, None, changes)
    return _function(platform, id, request)


@router.delete("/{id}", status_code=204)
async def delete(platform: Platform, who: Who, id: Id) -> None:  # noqa: A002
    """Deletes a function."""
    who.check(id)
    drafted = await _forget_draft(platform, id)
    if not drafted or id in platform.view.functions:
        await platform.deployments.delete(id)


@router.post("/{id}/code")
async def upload(platform: Platform, who: Who, request: Request, id: Id) -> Uploaded:  # noqa: A002
    """Gives a function its code: an archive, as the body or as the file of a form. Answers when it serves."""
    who.check(id)
    config: Mapping[str, Any] = {}
    if id not in platform.view.functions:
        draft = await _find_draft(platform, id)
        config = draft.config.model_dump(mode="json")
    await _deploy(platform, id, await read_upload(request, platform.uploads, "file"), config)
    await _forget_draft(platform, id)
    return Uploaded(code_path=_function(platform, id, request).code_path)


@router.get("/{id}/invocations")
async def invocations(platform: Platform, who: Who, id: Id) -> list[AetherInvocation]:  # noqa: A002
    """Lists the latest finished runs of a function, newest first."""
    who.check(id)
    if id not in platform.view.functions:
        await _find_draft(platform, id)
        return []
    found = await platform.machines.invocations(id, INVOCATIONS)
    return [_invocation(run) for run in found.things]


async def _deploy(platform: Control, name: str, source: Source | None, config: Mapping[str, Any]) -> None:
    """Deploys a function as the server that Aether takes it for, else as what its runtime names."""
    attempts = [config]
    if config.get("runtime", SERVER) != SERVER:
        attempts = [{**config, "runtime": SERVER}, config]
    *others, last = attempts
    for attempt in others:
        try:
            await _attempt(platform, name, _again(source), attempt)
        except (BuildFailed, FunctionLoadFailed):
            continue
        except BaseException:
            discard(Deploy(name, source))
            raise
        discard(Deploy(name, source))
        return
    await _attempt(platform, name, source, last)


async def _attempt(platform: Control, name: str, source: Source | None, config: Mapping[str, Any]) -> None:
    build = await platform.deployments.begin(Deploy(name, source, config, Expect.EITHER))
    await asyncio.shield(build.task)


def _again(source: Source | None) -> Source | None:
    """Returns an upload once more: each deploy discards its own."""
    if not isinstance(source, Archive):
        return source
    copy = Archive(source.path.with_name(secrets.token_hex(8)))
    os.link(source.path, copy.path)
    return copy


async def _find_draft(platform: Control, name: str) -> Draft:
    try:
        return await platform.registry.get_draft(name)
    except NotFound:
        raise FunctionNotFound(f"there is no function {name!r}") from None


async def _forget_draft(platform: Control, name: str) -> bool:
    """Deletes a draft. Whether there was one."""
    try:
        await platform.registry.delete_draft(name)
    except NotFound:
        return False
    return True


def _draft(draft: Draft) -> AetherFunction:
    return _described(draft.name, draft.config, "created", "", draft.created, draft.created)


def _function(platform: Control, name: str, request: Request) -> AetherFunction:
    shown: FunctionView = view(platform, find(platform, name), request)
    return _described(name, shown.config, shown.state, shown.code, shown.created, shown.updated)


def _described(
    name: str, config: FunctionConfig, state: str, code: str, created: float, updated: float
) -> AetherFunction:
    variables = dict(config.environment)
    port = variables.pop(PORT, "")
    return AetherFunction(
        id=name,
        name=name,
        runtime=config.runtime,
        entrypoint=config.handler,
        code_path=code,
        vcpu=ceil((config.cpu_limit or 1000) / 1000),
        memory_mb=config.memory // MiB,
        port=int(port) if port.isdecimal() else USUAL_PORT,
        env_vars=variables,
        state=state,
        created_at=_moment(created),
        updated_at=_moment(updated),
    )


def _invocation(run: InvocationView) -> AetherInvocation:
    failed = run.error is not None or run.status >= 500
    return AetherInvocation(
        id=run.id,
        function_id=run.function,
        status="timeout" if run.error == "function_timeout" else "error" if failed else "success",
        duration_ms=round(run.queue_ms + run.start_ms + run.run_ms),
        started_at=_moment(run.started),
        error_message=run.error or (f"status {run.status}" if failed else None),
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
