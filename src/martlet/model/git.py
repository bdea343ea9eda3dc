"""Code from a git repository."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from martlet.model.base import Frozen

_GIT_URL = re.compile(r"(https?|ssh|file)://[!-~]+")
_GIT_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@")
_GIT_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")


class GitSource(Frozen):
    """A folder in a commit of a git repository."""

    url: str = Field(
        max_length=1000,
        description="The repository: `https://`, `ssh://`, or `file://` for one in `system.build_folders`.",
    )
    ref: str = Field("HEAD", max_length=200, description="A branch, a tag or a commit.")
    path: str = Field("", max_length=500, description="The folder of the function in it.")

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        if not _GIT_URL.fullmatch(value):
            raise ValueError(
                "write https://, http://, ssh:// or file:// and where the repository is, without spaces"
            )
        if _GIT_PASSWORD.match(value):
            raise ValueError("it would show a password to whoever sees the build: leave that out")
        return value

    @field_validator("ref")
    @classmethod
    def _ref_is_a_name(cls, value: str) -> str:
        if not _GIT_REF.fullmatch(value) or ".." in value:
            raise ValueError(f"{value!r} is no name of a branch or tag, nor a commit")
        return value

    @field_validator("path")
    @classmethod
    def _path_stays_inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/") or not value.isprintable():
            raise ValueError(f"{value!r} is no folder below the top of the repository")
        return value
