"""No language is named outside of its folder: what one takes is data."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import martlet
from martlet.runtimes.description import read_description
from martlet.runtimes.runtime import SHIPPED

SOURCES = Path(martlet.__file__).parent
ORDINARY = {"go", "node", "r"}
"""Languages that are called by a word which has another meaning in the platform: only with a version are they meant."""
WORDS = {"bundle", "http", "lambda", "sh", "static"}
"""Runtimes without versions, and programs, that are called by a word which the platform must use (OCI has bundles)."""
PLATFORM = {"python"}
PLATFORM_SAYS_SO = {
    "cli/checks.py",  # the version of its own
    "drivers/docker/driver.py",  # the interpreter of its own that a container runs
    "drivers/guarantees.py",  # the interpreter of its own that does not start
    "images/debian.py",  # what a root needs for the platform's own programs
    "images/inside.py",  # the interpreter of its own that runs there
    "model/config.py",  # the runtime of inline code; variables that its own interpreter listens to
    "runtimes/description.py",  # what kind of module a zygote imports
}
"""Where the platform names what itself is written in."""


def names() -> set[str]:
    """Returns what languages and their programs are called."""
    found = set()
    for path in SHIPPED.glob("*/runtime.toml"):
        description = read_description(path)
        found.add(description.name)
        if description.toolchain is not None:
            programs = (description.toolchain, *description.toolchain.also)
            found |= {program.key for program in programs if program.programs != ("{interpreter}",)}
    return found - WORDS


def sources() -> list[Path]:
    found = [path for path in sorted(SOURCES.rglob("*.py")) if SHIPPED not in path.parent.parents]
    return [path for path in found if "templates" not in path.parts]  # what users begin with


def words(tree: ast.AST) -> Iterator[str]:
    """Yields every word of names and of texts, but not those of documentation."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from re.findall(r"[A-Za-z+]+[0-9.]*", node.value)
        elif isinstance(node, ast.alias):
            yield from re.findall(r"[A-Za-z]+", node.name)
        elif isinstance(node, ast.ImportFrom):
            yield from re.findall(r"[A-Za-z]+", node.module or "")
        elif isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.FunctionDef | ast.ClassDef):
            name = (
                node.id
                if isinstance(node, ast.Name)
                else getattr(node, "attr", None) or getattr(node, "arg", None)
            )
            yield from re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name or getattr(node, "name", ""))


def named(source: str, languages: set[str]) -> set[str]:
    """Returns the languages that a source names."""
    found = set()
    for word in words(ast.parse(source)):
        language = word.lower().rstrip("0123456789.")
        if language in languages and (language not in ORDINARY or word[-1].isdigit()):
            found.add(language)
    return found


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_a_source_names_no_language(path: Path) -> None:
    allowed = PLATFORM if str(path.relative_to(SOURCES)) in PLATFORM_SAYS_SO else set()
    assert named(path.read_text(), names()) - allowed == set()


@pytest.mark.parametrize(
    "source",
    [
        "if runtime == 'ruby': pass",
        "def build_ruby(): pass",
        "import x.ruby",
        "RubyBuilder()",
        "run('go1.2')",
    ],
)
def test_a_language_that_is_named_is_found(source: str) -> None:
    assert named(source, {"ruby", "go"})


def test_words_that_only_look_like_one_are_not() -> None:
    source = '"""Ruby."""\ndef go(node): return node["node"], go  # ruby'
    assert named(source, {"ruby", "go", "node"}) == set()
