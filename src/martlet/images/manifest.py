"""What an image says of itself: the manifest and the configuration of the OCI image specification, and Docker's."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from martlet.images.image import ImageConfig
from martlet.images.layout import Parts
from martlet.images.refusal import unusable
from martlet.images.streams import Verified, is_digest
from martlet.package.rules import shown

_LONGEST = 4 * 1024 * 1024
_MOST_LAYERS = 500
_DEEPEST = 4
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_VARIABLE = re.compile(r"[^=\0]+=[^\0]*")


@dataclass(frozen=True, slots=True)
class Layer:
    """Where a layer lies. ``digest`` is that of the part (None: it has none), ``plain`` that of it uncompressed."""

    part: str
    digest: str | None
    plain: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image, still packed: ``digest`` is that of its configuration, and its id."""

    digest: str
    config: ImageConfig
    layers: tuple[Layer, ...]


def read_manifest(parts: Parts) -> Manifest:
    """Returns the one image of a layout; of several platforms the one of this machine.

    Raises:
        Invalid: there is none, are several, or it is not as it should be.
    """
    if parts.has("index.json"):
        return _of_oci(parts)
    if parts.has("manifest.json"):
        return _of_docker(parts)
    raise unusable(
        "it has neither index.json nor manifest.json: send an OCI archive, or what `docker save` or `podman save` "
        "writes"
    )


def this_architecture() -> str:
    """Returns the architecture of this machine as images name it."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def _of_oci(parts: Parts) -> Manifest:
    manifest = _chosen(parts, _document(parts, "index.json", None), 0)
    described = _table(manifest, "config")
    digest = _digest(described)
    config = _table_of(_document(parts, _blob(digest), digest), "its configuration")
    layers = [_digest(_table_of(layer, "a layer")) for layer in _list(manifest, "layers")]
    return _manifest(digest, config, [(_blob(layer), layer) for layer in layers])


def _of_docker(parts: Parts) -> Manifest:
    document = _document(parts, "manifest.json", None)
    if not isinstance(document, list) or len(document) != 1:
        raise unusable("it has several images: save one")
    entry = _table_of(document[0], "manifest.json")
    part = entry.get("Config")
    if not isinstance(part, str):
        raise unusable("its manifest.json names no Config")
    named = re.search(r"([0-9a-f]{64})(\.json)?$", part)
    if named is None:
        raise unusable(f"its configuration {shown(part)} is not named after what it holds")
    digest = f"sha256:{named[1]}"
    config = _table_of(_document(parts, part, digest), "its configuration")
    return _manifest(digest, config, [(layer, None) for layer in _list(entry, "Layers")])


def _manifest(digest: str, config: dict[str, Any], layers: Sequence[tuple[Any, str | None]]) -> Manifest:
    architecture, system = config.get("architecture"), config.get("os", "linux")
    if system != "linux" or architecture not in (this_architecture(), None, ""):
        raise unusable(f"it is for {system} on {architecture}, and this machine is {this_architecture()}")
    plain = _list(_table(config, "rootfs"), "diff_ids")
    if len(plain) != len(layers) or not all(map(is_digest, plain)):
        raise unusable("its configuration and its manifest are about different layers")
    if len(layers) > _MOST_LAYERS:
        raise unusable(f"it has over {_MOST_LAYERS} layers")
    if not all(isinstance(part, str) for part, _ in layers):
        raise unusable("its manifest has a layer that is no path")
    found = (Layer(part, digest, diff) for (part, digest), diff in zip(layers, plain, strict=True))
    return Manifest(digest.partition(":")[2][:64], _config(config.get("config") or {}), tuple(found))


def _chosen(parts: Parts, index: Any, depth: int) -> dict[str, Any]:
    """Returns the manifest that an index, or one that it names, has for this machine."""
    if depth > _DEEPEST:
        raise unusable("its indexes lie in one another without an end")
    named = [
        _table_of(each, "an entry of an index") for each in _list(_table_of(index, "an index"), "manifests")
    ]
    fitting = [each for each in named if _fits(each.get("platform"))]
    if not fitting:
        found = ", ".join(sorted({_platform(each.get("platform")) for each in named})) or "nothing"
        raise unusable(f"it has {found}, and this machine is linux/{this_architecture()}")
    if len({_digest(each) for each in fitting}) > 1:
        raise unusable("it has several images: save one")
    digest = _digest(fitting[0])
    manifest = _table_of(_document(parts, _blob(digest), digest), "a manifest")
    return _chosen(parts, manifest, depth + 1) if "manifests" in manifest else manifest


def _fits(wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return True  # most archives of one image do not say
    return wanted.get("os") == "linux" and wanted.get("architecture") == this_architecture()


def _platform(named: Any) -> str:
    return (
        f"{named.get('os')}/{named.get('architecture')}"
        if isinstance(named, Mapping)
        else "one for no platform"
    )


def _config(given: Any) -> ImageConfig:
    given = _table_of(given, "config")
    environment = {}
    for line in _words(given, "Env"):
        if not _VARIABLE.fullmatch(line):
            raise unusable(f"its variable {shown(line)} is none: NAME=VALUE")
        name, _, value = line.partition("=")
        environment[name] = value
    folder, user = given.get("WorkingDir") or "/", given.get("User") or ""
    if not isinstance(folder, str) or not isinstance(user, str) or "\0" in folder:
        raise unusable("its WorkingDir and its User must be texts")
    return ImageConfig(
        entrypoint=_words(given, "Entrypoint"),
        command=_words(given, "Cmd"),
        environment=environment,
        folder=folder if folder.startswith("/") else f"/{folder}",
        user=user,
    )


def _words(given: Mapping[str, Any], key: str) -> tuple[str, ...]:
    words = given.get(key) or []
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise unusable(f"its {key} is no list of texts")
    return tuple(words)


def _document(parts: Parts, name: str, digest: str | None) -> Any:
    with parts.open(name) as part:
        checked = None if digest is None else Verified(part, digest, shown(name), _LONGEST)
        text = b""
        while data := (checked or part).read(_LONGEST):
            text += data
            if len(text) > _LONGEST:
                raise unusable(f"its part {shown(name)} is too long")
        if checked is not None:
            checked.finish()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise unusable(f"its part {shown(name)} is not JSON ({error})") from None


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(descriptor: Mapping[str, Any]) -> str:
    digest = descriptor.get("digest")
    if not is_digest(digest):
        raise unusable(f"it names a part by {shown(str(digest))}, which is no digest (sha256 or sha512)")
    return str(digest)


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _table_of(document.get(key), key)


def _table_of(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise unusable(f"{what} is no table")
    return value


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise unusable(f"{key} is no list")
    return value
