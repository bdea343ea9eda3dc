"""What an image is."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from martlet.model import Digest, Frozen


class ImageConfig(Frozen):
    """What an image says about the program in it.

    Attributes:
        entrypoint: the program and its first arguments.
        command: the arguments after those, which whoever starts it may replace.
        environment: its variables.
        folder: where it starts.
        user: who it is to be, as a name or number, perhaps with a group (``app:app``); empty: root.
    """

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = Field({})
    folder: str = "/"
    user: str = ""


class Contents(Frozen):
    """What has been unpacked: all of an image but what it is called and where it lies.

    Attributes:
        digest: sha256 (hex) that decides what is in it: that of the configuration of an OCI image (the id that Docker
            shows), that of the files of one made here.
        config: what it says about its program.
        source: where it is from, for people.
        inputs: what it was made from, as a digest; empty where it was imported.
    """

    digest: Digest
    config: ImageConfig = ImageConfig()
    source: str
    inputs: str = ""


class Record(Contents):
    """What is written down of an image that is kept.

    Attributes:
        size: bytes of its files.
        created: when it came here, in seconds since the epoch.
    """

    size: int
    created: float


class Image(Record):
    """A root in the store.

    Attributes:
        name: what people call it; empty where only revisions know it any more.
        root: its folder, which nobody may write to.
    """

    name: str
    root: Path

    @property
    def reference(self) -> str:
        """The name with the digest, which stays this image whatever the name becomes."""
        return f"{self.name}@{self.digest}"
