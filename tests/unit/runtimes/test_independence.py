"""The inside of an instance is the function's world: shims bring nothing of ours, and no package, into it."""

import ast
import sys
from pathlib import Path

import pytest

import martlet.runtimes

SOURCES = sorted(Path(martlet.runtimes.__file__).parent.glob("python/**/*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_shim_imports_its_own_modules_and_the_standard_library_only(source):
    shims = {path.name.removesuffix(".py") for path in source.parents[0].iterdir()}
    imported = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names - shims == set()
