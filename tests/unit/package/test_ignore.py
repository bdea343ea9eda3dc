"""What is left out of a package."""

import time
from pathlib import Path

import pytest

from martlet.errors import Invalid
from martlet.package.ignore import Ignore


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["secret.txt"], ["secret.txt", "a/secret.txt"], ["secret.txt2", "a/other"]),
        (["*.log"], ["x.log", "a/b/x.log"], ["x.log.py", "log"]),
        (["/top"], ["top"], ["a/top"]),
        (["a/b"], ["a/b"], ["b", "x/a/b"]),
        (["a/*"], ["a/x"], ["a", "b/a/x", "a/x/y"]),
        (["**/x"], ["x", "a/x", "a/b/x"], ["xx"]),
        (["a/**"], ["a/x", "a/b/c"], ["a"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["z"]),
        (["?.py"], ["a.py"], ["ab.py", "/.py"]),
        (["[ab].py"], ["a.py", "b.py"], ["c.py"]),
        (["[!ab].py"], ["c.py"], ["a.py"]),
        (["[a-c]"], ["b"], ["d"]),
        (["a.c"], ["a.c"], ["abc"]),
        (["["], ["["], ["a"]),
        (["*.txt", "!keep.txt"], ["a.txt"], ["keep.txt", "a/keep.txt"]),
        (["!a", "a"], ["a"], []),
    ],
)
def test_patterns_mean_what_they_mean_to_git(
    patterns: list[str], ignored: list[str], kept: list[str]
) -> None:
    ignore = Ignore(tuple(patterns))
    assert [path for path in ignored if not ignore.matches(path, is_folder=False)] == []
    assert [path for path in kept if ignore.matches(path, is_folder=False)] == []


def test_a_slash_at_the_end_means_folders_only() -> None:
    ignore = Ignore(("data/",))
    assert ignore.matches("data", is_folder=True)
    assert not ignore.matches("data", is_folder=False)


@pytest.mark.parametrize(
    "path", [".git", "a/__pycache__", "x.pyc", ".venv", "__MACOSX", ".DS_Store", ".martletignore"]
)
def test_what_nobody_wants_is_left_out_by_default(path: str) -> None:
    assert Ignore().matches(path, is_folder=True)
    assert not Ignore().matches("node_modules", is_folder=True)


def test_the_folder_says_more_and_may_take_defaults_back(tmp_path: Path) -> None:
    (tmp_path / ".martletignore").write_text("# tests\ntests/\n\n!.git\n")
    ignore = Ignore.of(tmp_path)
    assert ignore.matches("tests", is_folder=True)
    assert ignore.matches("__pycache__", is_folder=True)
    assert not ignore.matches(".git", is_folder=True)


@pytest.mark.parametrize("content", [b"\xff", b"x\n" * 501])
def test_a_file_that_cannot_be_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".martletignore").write_bytes(content)
    with pytest.raises(Invalid, match="martletignore"):
        Ignore.of(tmp_path)


def test_a_pattern_made_to_be_slow_is_not(tmp_path: Path) -> None:
    (tmp_path / ".martletignore").write_text("*a" * 40 + "b\n" + "**/" * 30 + "b\n")
    assert not Ignore.of(tmp_path).matches("a" * 200, is_folder=False)


@pytest.mark.parametrize("pattern", ["**/" * 20_000 + "x", "**/a*/" * 10_000 + "x"])
def test_a_long_pattern_takes_no_longer_than_a_short_one(pattern):
    def seconds(pattern: str) -> float:
        ignore = Ignore((pattern,))
        began = time.thread_time()
        for _ in range(20):
            ignore.matches("/".join("a" * 20), is_folder=False)
        return time.thread_time() - began

    short = pattern[:12] + "x"
    assert min(seconds(pattern) for _ in range(3)) < 50 * min(seconds(short) for _ in range(3))
