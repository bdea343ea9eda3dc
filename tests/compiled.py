"""Programs of C that tests compile, to be all that there is in an image."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import require

SERVER = Path(__file__).parent / "programs" / "server.c"


def compiled(path: Path, source: str, *options: str) -> bytes:
    """Compiles a text to a file, and returns what is in it."""
    require(shutil.which("gcc"), "gcc (apt-get install gcc libc6-dev)")
    command = ["gcc", "-O1", "-w", *options, "-o", path, "-x", "c", "-"]
    subprocess.run(command, input=source.encode(), check=True)
    return path.read_bytes()


def server(folder: Path) -> bytes:
    """Returns a server that takes no other file."""
    return compiled(folder / "server", SERVER.read_text(), "-static", "-pthread")
