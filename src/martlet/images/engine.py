"""Images of a Docker or podman engine of this machine, through its command.

A container is made of the image, never started, exported and removed; what the image says about its program comes from
``inspect``. Both become an OCI archive, which is imported like any other.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from martlet.errors import Invalid, Unavailable
from martlet.images.image import Image
from martlet.images.manifest import this_architecture
from martlet.images.oci import import_image
from martlet.images.refusal import too_large, unusable
from martlet.images.store import Images
from martlet.package.staging import CHUNK

ENGINES = ("docker", "podman")
PREFIXES = tuple(f"{engine}://" for engine in ENGINES)
# The container is never started, so that nothing of it needs systemd.
_OPTIONS = {"docker": (), "podman": ("--cgroup-manager=cgroupfs", "--events-backend=none")}
_SECONDS = 600.0
_NAME = "martlet-export-"
_WORDS = ("Entrypoint", "Cmd", "Env", "WorkingDir", "User")


def import_from_engine(images: Images, name: str, source: str, limit: int) -> Image:
    """Keeps an image of an engine under a name.

    Args:
        images: where it is kept.
        name: what it will be called.
        source: ``docker://NAME`` or ``podman://NAME``.
        limit: bytes that it may have.

    Raises:
        Invalid: the engine has no such image, or it is not one that may be here.
        Unavailable: the engine cannot be reached, or the disk is full.
    """
    with images.work() as work:
        return import_image(images, name, export(source, work, limit), source, limit)


def identity(source: str) -> str:
    """Returns what tells an image of an engine from others that had its name. Raises as `import_from_engine`."""
    command, image = _asked(source)
    return str(_inspect(command, image, source)["Id"])


def export(source: str, folder: Path, limit: int) -> Path:
    """Writes an image of an engine as an OCI layout into a folder and returns where. Raises as `import_from_engine`."""
    command, image = _asked(source)
    found = _inspect(command, image, source)
    layout = folder / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = _layer(command, image, source, blobs, limit)
    given = found.get("Config") or {}
    config = {
        "architecture": found.get("Architecture") or this_architecture(),
        "os": found.get("Os") or "linux",
        "config": {key: given[key] for key in _WORDS if given.get(key)},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }
    manifest = {"schemaVersion": 2, "config": _blob(blobs, config), "layers": [{"digest": layer}]}
    index = {"schemaVersion": 2, "manifests": [_blob(blobs, manifest)]}
    (layout / "index.json").write_bytes(orjson.dumps(index))
    return layout


def _asked(source: str) -> tuple[list[str], str]:
    """Returns the command that a source is asked for by, and the image's name there."""
    engine, _, image = source.partition("://")
    if engine not in ENGINES or not image or image.startswith("-"):
        raise Invalid(
            f"image: {source!r} is none of an engine: write docker://NAME or podman://NAME", field="image"
        )
    program = shutil.which(engine)
    if program is None:
        raise unusable(
            f"there is no {engine} on this machine; save the image to a file elsewhere and send that"
        )
    return [program, *_OPTIONS[engine]], image


def _inspect(command: Sequence[str], image: str, source: str) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(_run([*command, "image", "inspect", image], source))[0]
    return found


def _layer(command: Sequence[str], image: str, source: str, blobs: Path, limit: int) -> str:
    """Writes all files of an image as one layer and returns its digest."""
    container = f"{_NAME}{secrets.token_hex(8)}"
    # An image may name no program, and then wants to be told one.
    _run([*command, "create", f"--name={container}", image, "/none"], source)
    try:
        return _export([*command, "export", container], source, blobs, limit)
    finally:
        _run([*command, "rm", "--force", container], source)


def _export(command: Sequence[str], source: str, blobs: Path, limit: int) -> str:
    digest, written = hashlib.sha256(), 0
    with (
        (blobs / "new").open("wb") as file,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        try:
            while data := process.stdout.read(CHUNK):
                written += len(data)
                if written > limit:
                    raise too_large(limit)
                digest.update(data)
                file.write(data)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise Unavailable(f"{source} could not be exported: see what `{' '.join(command[:2])}` says")
    (blobs / "new").rename(blobs / digest.hexdigest())
    return f"sha256:{digest.hexdigest()}"


def _blob(blobs: Path, document: dict[str, Any]) -> dict[str, Any]:
    content = orjson.dumps(document)
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


def _run(command: Sequence[str], source: str) -> bytes:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{source}: the engine does not answer within {_SECONDS:.0f} seconds") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise unusable(f"{source} cannot be had from its engine, which says: {said}")
    return done.stdout
