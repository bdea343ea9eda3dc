"""The process that fuzzes: ``python -m tests.fuzz.instrumented TARGET [FILE or libFuzzer's options]``.

Given a file instead of a folder it runs that one input.
"""

import sys
from importlib import import_module

import atheris

with atheris.instrument_imports(include=["martlet", "tests.fuzz.planted"]):
    target = import_module(f"tests.fuzz.{sys.argv.pop(1)}")

atheris.Setup(sys.argv, target.check)
atheris.Fuzz()
