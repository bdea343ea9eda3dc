"""Deploying: from a file, a folder or an archive to a revision that serves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from martlet.client.call import Call, Document, Plan, one, segment
from martlet.client.errors import ApiError, ClientError
from martlet.client.plans import build, build_log, function
from martlet.errors import BuildFailed, FunctionNotFound

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
"""How the name of a file ends that is sent as an archive; any other file is the code itself."""

OnUpload = Callable[[int, int], None]
"""Called with the bytes that were sent so far, and all there are to send."""

OnLine = Callable[[Document], None]
"""Called with each line of the build's log."""


def deploy(
    name: str,
    source: Path | str | None = ".",
    config: Mapping[str, Any] | None = None,
    *,
    git: Mapping[str, str] | None = None,
    on_upload: OnUpload | None = None,
    on_line: OnLine | None = None,
) -> Plan[Document]:
    """Creates the function, or makes a new revision of it, and returns it once that serves.

    Args:
        name: the function.
        source: a folder (less what its ``.martletignore`` leaves out), an archive (zip, tar.gz or tar) or one
            file of code; None: it is an image (``config["image"]``), or keeps the code that it has.
        config: keys of the function's configuration; the others stay as they are, where the function exists.
        git: in place of ``source`` the platform fetches this: ``url``, and if needed ``ref`` and ``path``.
        on_upload: told of the progress of the upload.
        on_line: told of each line of the build's log.

    Raises:
        ApiError: the platform refused it, or it does not build or load: then ``code`` is ``build_failed``, and
            what served before still does.
        ClientError: ``source`` cannot be read.
        Invalid: the folder holds something that no package may.
    """
    exists = yield from _exists(name)
    if git is not None or source is None:
        body = ({} if git is None else {"git": dict(git)}) | {"config": dict(config or {})}
        started = yield from _send(name, body, exists)
    else:
        started = yield from _upload(name, Path(source), dict(config or {}), exists, on_upload or _ignore)
    yield from build_log(started["id"], on_line or _ignore)
    ended = yield from build(started["id"])
    if ended["state"] != "ready":
        raise _failed(ended)
    return (yield from function(name))


def _failed(build: Document) -> ApiError:
    problem = {
        "code": BuildFailed.code,
        "title": BuildFailed.title,
        "detail": build.get("error"),
        "build": build,
    }
    return ApiError(BuildFailed.status, problem, request_id=None, retry_after=None)


def _exists(name: str) -> Plan[bool]:
    try:
        yield from function(name)
    except ApiError as error:
        if issubclass(error.kind, FunctionNotFound):
            return False
        raise
    return True


def _send(name: str, body: Document, exists: bool) -> Plan[Document]:
    if exists:
        return (yield from one(Call("PUT", f"/functions/{segment(name)}", {"wait": False}, json=body)))
    return (yield from one(Call("POST", "/functions", {"wait": False}, json={"name": name, **body})))


def _upload(name: str, source: Path, config: Document, exists: bool, on_upload: OnUpload) -> Plan[Document]:
    method, path = ("PUT", f"/functions/{segment(name)}") if exists else ("POST", "/functions")
    query = {"wait": False}
    if source.is_dir() or source.name.endswith(ARCHIVES):
        form = {"config": json.dumps(config)} | ({} if exists else {"name": name})
        with _archive(source) as archive, _Upload(archive, on_upload) as upload:
            return (yield from one(Call(method, path, query, form=form, upload=upload)))
    body = {"code": _text(source), "config": config}
    body |= {} if exists else {"name": name, "file": source.name}
    return (yield from one(Call(method, path, query, json=body)))


@contextmanager
def _archive(source: Path) -> Iterator[Path]:
    if not source.is_dir():
        yield source
        return
    from martlet.package.ignore import Ignore
    from martlet.package.packing import pack
    from martlet.package.rules import Limits

    # The platform's own limits decide; these only stop somebody who deploys their whole disk by mistake.
    limits = Limits(bytes=16 * 1024**3, entries=1_000_000)
    with TemporaryDirectory(prefix="martlet-") as folder:
        yield pack(source, Path(folder) / "archive.tar.gz", limits, Ignore.of(source)).path


def _text(source: Path) -> str:
    try:
        return source.read_text()
    except OSError as error:
        raise ClientError(f"cannot read {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ClientError(f"{source} is neither text nor an archive ({', '.join(ARCHIVES)})") from None


class _Upload(io.FileIO):
    """A file that tells how much of it has been read."""

    def __init__(self, path: Path, on_read: OnUpload) -> None:
        try:
            super().__init__(path)
        except OSError as error:
            raise ClientError(f"cannot read {path}: {error.strerror}") from None
        self._on_read = on_read
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._on_read(self.tell(), self._size)
        return data or b""


def _ignore(*_: object) -> None:
    """Stands in for whoever does not want to be told."""
