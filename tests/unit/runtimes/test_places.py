"""Programs are found by the patterns that descriptions name them by."""

from pathlib import Path

import pytest

from martlet.runtimes.places import Places

NAMES = ("go", "go1.22", "go1.3", "gofmt", "golang", "lua", "lua5.4", "luac", "python3", "python3.11")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for name in (*NAMES, "zz"):
        (tmp_path / name).touch(0o755)
    (tmp_path / "go2").touch(0o644)  # which nobody can run
    return Places([], str(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("go", ["go"]),
        ("go?.*", ["go1.22", "go1.3"]),
        ("go*", ["go", "go1.22", "go1.3", "gofmt", "golang"]),
        ("lua[0-9]*", ["lua5.4"]),
        ("[gl]*[0-9]", ["go1.22", "go1.3", "lua5.4"]),
        ("python3.11", ["python3.11"]),
        ("*z", ["zz"]),
        ("go2", []),
        ("h*", []),
    ],
)
def test_programs_are_named_exactly_or_by_wildcards(
    places: Places, tmp_path: Path, pattern: str, named: list[str]
) -> None:
    found = [path.name for path in places.find([pattern]) if path.parent == tmp_path]
    assert found == named
