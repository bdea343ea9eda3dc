"""Installs the toolchains of every runtime that comes with Martlet, as far as this machine lacks them.

``python -m scripts.toolchains FOLDER``: Debian packages where it runs as root, and in FOLDER what the script
``toolchain`` of a runtime's folder puts there: what Debian does not have, or a second version. Such a script is given
FOLDER and leaves alone what it has installed before. The exit code is 1 where one failed, or a runtime is missing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from martlet.runtimes import Catalogue
from martlet.runtimes.description import read_description
from martlet.runtimes.runtime import SHIPPED
from martlet.settings import SystemSettings

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Installs, and says what is missing still."""
    (folder,) = (Path(argument).absolute() for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    settings = SystemSettings(toolchains_path=(folder,), function_storage_path=folder)
    catalogue = Catalogue.of(settings)
    packages = list(dict.fromkeys(debian(catalogue)))
    if packages:
        subprocess.run([ROOT / "scripts/packages", *packages], check=False)
    failed = False
    for script in sorted(SHIPPED.glob("*/toolchain")):
        if (script.parent / "runtime.toml").exists():
            done = subprocess.run(["sh", script, folder], check=False, stdin=subprocess.DEVNULL)
            failed |= done.returncode != 0
    catalogue.refresh()
    for absent in catalogue.absent():
        way = f"; to install it: {absent.remedy}" if absent.remedy else ""
        print(f"{absent.title} is missing: {absent.reason}{way}", file=sys.stderr)
    return 1 if failed or catalogue.absent() else 0


def debian(catalogue: Catalogue) -> Iterator[str]:
    """Yields the Debian packages of what is missing to run, or to build."""
    for runtime in catalogue.available():
        for lacking in runtime.lacks:
            yield from lacking.debian
    absent = {each.name for each in catalogue.absent()}
    for path in SHIPPED.glob("*/runtime.toml"):
        description = read_description(path)
        if description.name in absent and description.toolchain is not None:
            for program in (description.toolchain, *description.toolchain.also):
                yield from program.debian


if __name__ == "__main__":
    sys.exit(main())
