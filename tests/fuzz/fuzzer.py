"""Runs a coverage-guided fuzzer (atheris, which is libFuzzer for Python) on the targets of this folder.

A target is a module with ``check(data)``, which raises where something that must hold does not, and ``SEEDS`` to begin
with.
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

TARGETS = ("server", "chain", "upstream", "shim", "frames", "lines", "archive", "entries")
ROOT = Path(__file__).parents[2]
LONGEST = 4500
"""Bytes of an input."""


def fuzz(target: str, seconds: int, folder: Path, seed: int | None = None) -> str | None:
    """Fuzzes one target.

    Args:
        target: name of a module beside this one.
        seconds: to spend.
        folder: where the inputs that reach new code gather (and are begun with next time), and those that fail.
        seed: with one, the same inputs are tried each time, as far as the time reaches.

    Returns:
        What went wrong, with the file that has the input; None where nothing did.
    """
    corpus = folder / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(import_module(f"tests.fuzz.{target}").SEEDS):
        (corpus / f"seed-{number}").write_bytes(first)
    limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=30", "-rss_limit_mb=2048"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if seed is not None:
        limits.append(f"-seed={seed}")
        environment["PYTHONHASHSEED"] = str(seed)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.fuzz.instrumented",
            target,
            corpus,
            f"-artifact_prefix={folder}/{target}-",
            *limits,
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0 and "\nDone " in done.stdout:
        return None
    lines = [
        line for line in done.stdout.splitlines() if not line.startswith(("#", "INFO", "\t", "0x", "Base64"))
    ]
    return "\n".join(line[:500] for line in lines[-40:])
