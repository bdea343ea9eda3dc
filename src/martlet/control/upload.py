"""What a deploy brings with it: JSON with the code inside, a form with an archive, or an archive as the body."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from fastapi import Request
from pydantic import Field
from starlette.datastructures import FormData, UploadFile

from martlet.builder.source import Archive, Git, Inline, Source
from martlet.errors import BadRequest, Invalid
from martlet.model import Frozen, FunctionName, GitSource
from martlet.validation import validated

FORM = "multipart/form-data"
LONGEST_FIELD = 1024 * 1024


class FunctionBody(Frozen):
    """A function as JSON."""

    name: FunctionName = Field(description="What people invoke.")
    code: str | None = Field(None, description="The text of its one file.")
    git: GitSource | None = Field(None, description="In place of `code`: where it lies in git.")
    file: str = Field(
        "",
        max_length=255,
        description="What that file is called, which says the runtime where `config` does not.",
    )
    config: dict[str, Any] = Field(
        {}, description="Keys of its configuration; the others have their defaults."
    )


class ChangeBody(Frozen):
    """A change of a function as JSON."""

    name: FunctionName | None = Field(None, description="The function; it cannot be renamed.")
    code: str | None = Field(None, description="The text of its one file; it stays as it is by default.")
    git: GitSource | None = Field(None, description="In place of `code`: where it lies in git.")
    config: dict[str, Any] = Field({}, description="Keys of its configuration; the others stay as they are.")


class FunctionForm(Frozen):
    """A function as a form; its archive is the part of that name."""

    name: FunctionName
    config: dict[str, Any] = Field({})


class ChangeForm(Frozen):
    """A change of a function as a form."""

    name: FunctionName | None = None
    config: dict[str, Any] = Field({})


Sent = tuple[str, Source | Git | None, dict[str, Any]]
"""The name, the code (None: it is an image) and the configuration that were sent."""
SentChange = tuple[str | None, Source | Git | None, dict[str, Any]]
"""The same; None for what was left out."""


async def read_function(request: Request, uploads: Path) -> Sent:
    """Reads the body of a request that makes a function; an archive is written to a file in ``uploads``.

    Raises:
        BadRequest: it is neither JSON nor a form.
        Invalid: a member of it is missing, unknown or of the wrong type.
    """
    if not _is_form(request):
        body = validated(FunctionBody, await _json(request))
        source = _source(body.code, body.git, body.file)
        if source is None and body.config.get("image") is None:
            raise Invalid("code: write the text of its file, or git: where it lies", field="code")
        return body.name, source, body.config
    async with request.form(max_files=1, max_fields=10, max_part_size=LONGEST_FIELD) as form:
        fields = validated(FunctionForm, _fields(form))
        archive = await _archive(form, uploads)
    if archive is None:
        raise Invalid("archive: the form has no such file; send a zip, a tar.gz or a tar", field="archive")
    return fields.name, archive, fields.config


async def read_change(request: Request, uploads: Path) -> SentChange:
    """Like `read_function`, for a request that changes one: everything may be left out."""
    if not _is_form(request):
        body = validated(ChangeBody, await _json(request))
        return body.name, _source(body.code, body.git), body.config
    async with request.form(max_files=1, max_fields=10, max_part_size=LONGEST_FIELD) as form:
        fields = validated(ChangeForm, _fields(form))
        return fields.name, await _archive(form, uploads), fields.config


async def read_upload(request: Request, uploads: Path, name: str) -> Source:
    """Like `read_archive`, or, where the body is a form, takes the archive that is its file of this name.

    Raises:
        Invalid: the form has no such file.
    """
    if not _is_form(request):
        return await read_archive(request, uploads)
    async with request.form(max_files=1, max_fields=10, max_part_size=LONGEST_FIELD) as form:
        archive = await _archive(form, uploads, name)
    if archive is None:
        raise Invalid(f"{name}: the form has no such file; send a zip, a tar.gz or a tar", field=name)
    return archive


async def read_archive(request: Request, uploads: Path) -> Archive:
    """Writes the body of a request to a file in ``uploads``, as it comes."""
    archive = Archive(uploads / secrets.token_hex(8))
    try:
        with archive.path.open("xb") as file:
            async for chunk in request.stream():
                await asyncio.to_thread(file.write, chunk)
    except BaseException:
        archive.discard()
        raise
    return archive


def _source(code: str | None, git: GitSource | None, file: str = "") -> Inline | Git | None:
    if git is None:
        return None if code is None else Inline(code, file)
    if code is not None:
        raise Invalid("git: send either code or git", field="git")
    return Git(git)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(FORM)


async def _json(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON ({error}); it may also be {FORM}") from None


def _fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "archive":
                raise Invalid(f"{name}: there is no such file; send the code as the file archive", field=name)
        elif name == "config":
            try:
                fields[name] = orjson.loads(value)
            except orjson.JSONDecodeError as error:
                raise Invalid(f"config: it is not JSON ({error})", field="config") from None
        elif name == "archive":
            raise Invalid("archive: send it as a file, with a file name", field="archive")
        else:
            fields[name] = value
    return fields


async def _archive(form: FormData, uploads: Path, name: str = "archive") -> Archive | None:
    sent = form.get(name)
    if not isinstance(sent, UploadFile):
        return None
    archive = Archive(uploads / secrets.token_hex(8))
    await asyncio.to_thread(_copy, sent.file, archive.path)
    return archive


def _copy(source: BinaryIO, target: Path) -> None:
    with target.open("xb") as file:
        shutil.copyfileobj(source, file, 1024 * 1024)
