"""Taking in an image that others have made."""

from __future__ import annotations

from pathlib import Path

from martlet.images.image import Contents, Image
from martlet.images.layout import Parts, opened
from martlet.images.manifest import Layer, read_manifest
from martlet.images.refusal import MOST_FILES
from martlet.images.store import ROOT, Images
from martlet.images.streams import Verified, decompressed
from martlet.images.tree import Tree
from martlet.package.rules import shown
from martlet.package.tar import BLOCK

_OF_HEADERS = 4 * BLOCK * MOST_FILES
"""Bytes that a layer may have besides what its files hold."""


def import_image(images: Images, name: str, path: Path, source: str, limit: int) -> Image:
    """Keeps the image of an OCI image layout, or of what ``docker save`` writes, under a name.

    Args:
        images: where it is kept.
        name: what it will be called.
        path: the layout: a folder, or an archive, which may be compressed.
        source: where it is from, for people.
        limit: bytes that it may have, packed and unpacked.

    Raises:
        Invalid: it is no image, is damaged, for another machine, or not one that may be here.
        Unavailable: the disk is full.
    """
    with images.work() as work:
        tree = Tree(work / ROOT, limit)
        with opened(path, work, limit + _OF_HEADERS) as parts:
            manifest = read_manifest(parts)
            for layer in manifest.layers:
                _apply(tree, parts, layer, limit + _OF_HEADERS)
        (work / "archive").unlink(missing_ok=True)
        tree.open_to(manifest.config.user)
        contents = Contents(digest=manifest.digest, config=manifest.config, source=source)
        return images.add(name, contents, work)


def _apply(tree: Tree, parts: Parts, layer: Layer, limit: int) -> None:
    what = f"its layer {shown(layer.part)}"
    with parts.open(layer.part) as part:
        packed = Verified(part, layer.digest or layer.plain, what, limit)
        with decompressed(packed) as stream:
            plain = Verified(stream, layer.plain, what, limit)
            tree.apply(plain)
            plain.finish()
        if layer.digest is not None:
            packed.finish()
