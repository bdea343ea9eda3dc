"""Tiny packages of our own, so that builds need no network."""

import base64
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

MakeWheel = Callable[..., Path]


@pytest.fixture
def make_wheel(tmp_path: Path) -> MakeWheel:
    """Makes wheels that are found where `only_links` leads: ``make_wheel("tiny", "1.0", requires=["other"])``."""
    links = tmp_path / "links"
    links.mkdir(exist_ok=True)

    def make(name: str, version: str, code: str = "ANSWER = 42\n", requires: tuple[str, ...] = ()) -> Path:
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files = {
            f"{name}/__init__.py": code,
            f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {one}\n" for one in requires),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
        wheel = links / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
            archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
        return wheel

    return make


def only_links(folder: Path) -> dict[str, str]:
    """Returns what lets uv find the wheels of a test in ``folder``, and nothing else."""
    return {"UV_FIND_LINKS": str(folder / "links"), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
