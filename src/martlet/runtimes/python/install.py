"""Installs what a Python function needs: ``install.py UV lock``, then ``install.py UV install`` (see runtime.toml).

A lock is what uv resolves the list of requirements to, and is kept: the same list has the same lock, unless newer
versions are asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, os.path.dirname(__file__))

from compile import compile_folder  # type: ignore[import-not-found]
from requirements import Refused, requirements  # type: ignore[import-not-found]

_ANSWER = 4
_DEPENDENCIES = "/dependencies"
"""Where functions see them; compiled modules name their source there."""


def main(uv: str, step: str) -> None:
    """Does one of the two steps."""
    os.environ.setdefault("UV_CACHE_DIR", f"{os.environ['MARTLET_CACHE']}/uv")
    os.environ |= {
        "NO_COLOR": "1",
        "UV_NO_PROGRESS": "1",
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    output = Path(os.environ["MARTLET_OUTPUT"])
    if step == "lock":
        _lock(uv, output / "lock")
    else:
        _install(uv, Path(os.environ["MARTLET_LOCK"]), output)


def _lock(uv: str, target: Path) -> None:
    configured = os.environ["MARTLET_DEPENDENCIES"].splitlines()
    try:
        wanted = requirements(configured, Path(os.environ["MARTLET_SOURCE"]))
    except Refused as error:
        _refuse(str(error), error.field)
    if not wanted:
        return
    text = "".join(f"{line}\n" for line in wanted)
    digest = hashlib.sha256(f"{sys.version}\n{text}".encode()).hexdigest()
    kept = Path(os.environ["MARTLET_CACHE"], f"{digest}.lock")
    if "MARTLET_UPGRADE" in os.environ or not kept.exists():
        print("resolving", ", ".join(wanted), flush=True)
        source, fresh = (
            Path(os.environ["TMPDIR"], "requirements.in"),
            Path(os.environ["TMPDIR"], "requirements.lock"),
        )
        source.write_text(text)
        _uv(uv, "compile", source, "--output-file", fresh, "--no-header", "--no-annotate", "--quiet")
        shutil.copyfile(fresh, kept)
    print(kept.read_text(), end="")
    shutil.copyfile(kept, target)


def _install(uv: str, lock: Path, target: Path) -> None:
    _uv(uv, "install", "--requirements", lock, "--target", target, "--no-deps")
    (target / ".lock").unlink(missing_ok=True)
    print("compiling", flush=True)
    compile_folder(target, _DEPENDENCIES)


def _uv(uv: str, command: str, *arguments: str | Path) -> None:
    options = ["--python", sys.executable, "--color", "never"]
    done = subprocess.run([uv, "pip", command, *arguments, *options], check=False)
    if done.returncode != 0:
        _refuse("the dependencies cannot be installed; the build's log says why", "config.dependencies")


def _refuse(message: str, field: str) -> NoReturn:
    os.write(_ANSWER, json.dumps({"field": field, "message": message}).encode() + b"\n")
    sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
