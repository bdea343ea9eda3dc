"""Images that tests write by hand: OCI layouts, and what ``docker save`` writes."""

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass
class Entry:
    """One entry of a layer; what ``type`` is, tarfile says."""

    name: str
    text: str | bytes = ""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000_000


def folder(name: str, **members: Any) -> Entry:
    return Entry(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **members})


def link(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.SYMTYPE, target=target)


def copy(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.LNKTYPE, target=target)


def layer(*entries: Entry) -> bytes:
    """Returns an uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            content = entry.text.encode() if isinstance(entry.text, str) else entry.text
            info = tarfile.TarInfo(entry.name)
            info.size = len(content) if entry.type == tarfile.REGTYPE else 0
            info.type, info.linkname, info.mode = entry.type, entry.target, entry.mode
            info.uid, info.gid, info.mtime = entry.uid, entry.gid, entry.mtime
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@dataclass
class Layout:
    """An image; ``compression`` is that of its layers (gzip, zstd or none)."""

    layers: list[bytes]
    config: dict[str, Any] = field(default_factory=dict)
    compression: str = "gzip"
    architecture: str = ARCHITECTURE
    blobs: dict[str, bytes] = field(default_factory=dict)

    def blob(self, content: bytes, algorithm: str = "sha256") -> dict[str, Any]:
        """Adds a blob and returns its descriptor."""
        digest = hashlib.new(algorithm, content).hexdigest()
        self.blobs[f"blobs/{algorithm}/{digest}"] = content
        return {"digest": f"{algorithm}:{digest}", "size": len(content)}

    @property
    def configuration(self) -> bytes:
        diffs = [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in self.layers]
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diffs},
        }
        return json.dumps(document).encode()

    def manifest(self) -> dict[str, Any]:
        """Adds all of the image and returns the descriptor of its manifest."""
        layers = [self.blob(compressed(each, self.compression)) for each in self.layers]
        document = {"schemaVersion": 2, "config": self.blob(self.configuration), "layers": layers}
        return self.blob(json.dumps(document).encode())

    def files(self) -> dict[str, bytes]:
        """Returns the files of the layout."""
        return index(self, {**self.manifest()})

    def docker(self) -> dict[str, bytes]:
        """Returns the files that ``docker save`` writes of it."""
        config = hashlib.sha256(self.configuration).hexdigest() + ".json"
        layers = {f"{number}/layer.tar": each for number, each in enumerate(self.layers)}
        entry = {"Config": config, "RepoTags": ["test:latest"], "Layers": list(layers)}
        return {config: self.configuration, **layers, "manifest.json": json.dumps([entry]).encode()}


def index(layout: Layout, *manifests: dict[str, Any]) -> dict[str, bytes]:
    """Returns the files of a layout whose index names these manifests."""
    document = {"schemaVersion": 2, "manifests": list(manifests)}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        **layout.blobs,
        "index.json": json.dumps(document).encode(),
    }


def compressed(content: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(content, 1)
    if compression == "zstd":
        program = shutil.which("zstd")
        assert program is not None
        return subprocess.run([program, "-q", "-c"], input=content, capture_output=True, check=True).stdout
    return content


def archive(path: Path, files: dict[str, bytes]) -> Path:
    """Writes files into a tar."""
    path.write_bytes(layer(*(Entry(name, content) for name, content in files.items())))
    return path


def spread(path: Path, files: dict[str, bytes]) -> Path:
    """Writes files into a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def server(files: Iterable[Path], config: dict[str, Any]) -> Layout:
    """Returns an image of files of this machine, at their own paths."""
    entries = [Entry(str(path), path.read_bytes(), mode=0o755) for path in files]
    return Layout([layer(*entries)], config)
