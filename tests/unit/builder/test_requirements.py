"""Which packages a function asks for, and which lines are refused."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from martlet.runtimes.runtime import SHIPPED

_SPEC = spec_from_file_location("requirements", SHIPPED / "python/requirements.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_MODULE = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
requirements, Refused = _MODULE.requirements, _MODULE.Refused


@pytest.mark.parametrize(
    "line",
    [
        "requests",
        "requests==2.28.0",
        "requests[socks,use-chardet]>=2,<3",
        "zope.interface ~= 5.0",
        "a==1.*",
        "a>=1,!=1.5,<2",
        "a (>=1.0)",
        "a===1.0+local",
        "typing_extensions; python_version < '3.12'",
        "a>=1 ; python_version >= '3.8' and sys_platform == 'linux'",
    ],
)
def test_what_pip_writes_is_taken(tmp_path: Path, line: str) -> None:
    assert requirements([f" {line} "], tmp_path) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "-r /etc/passwd",
        "--index-url=http://evil.example",
        "-e .",
        "--find-links /",
        "./folder",
        "/etc/passwd",
        "../up",
        "file:///etc/passwd",
        "evil @ file:///etc/passwd",
        "evil @ http://169.254.169.254/x.whl",
        "git+https://evil.example/x",
        "requests==1.0 --hash=sha256:x",
        "a\n--index-url http://evil.example",
        "a; python_version>'3'\n-r x",
        "a b",
        "",
        "ünïcode",
        "a==",
        "a" + " " * 200_000 + "b",
    ],
)
def test_options_paths_and_addresses_are_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(Refused) as caught:
        requirements([line], tmp_path)
    assert caught.value.field == "config.dependencies"


def test_a_requirements_file_counts_where_nothing_is_configured(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "# tools\nrequests==2.28.0 \\\n    --hash=sha256:abc --hash=sha256:def\n\nflask  # web\nflask\n"
    )
    assert requirements([], tmp_path) == ["flask", "requests==2.28.0"]
    assert requirements(["only"], tmp_path) == ["only"]


def test_a_project_file_counts_where_there_is_no_requirements_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname='x'\ndependencies = ['b>1', 'a']\n")
    assert requirements([], tmp_path) == ["a", "b>1"]
    (tmp_path / "requirements.txt").write_text("c")
    assert requirements([], tmp_path) == ["c"]


def test_a_function_without_any_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert requirements([], tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("requirements.txt", b"-r other.txt"),
        ("requirements.txt", b"\xff\xfe"),
        ("requirements.txt", b"x" * 300_000),
        ("pyproject.toml", b"["),
        ("pyproject.toml", b"project = 3"),
        ("pyproject.toml", b"[project]\ndependencies = 'x'"),
        ("pyproject.toml", b"[project]\ndependencies = [3]"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=name) as caught:
        requirements([], tmp_path)
    assert caught.value.field == "code"


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("a")
    (tmp_path / "requirements.txt").symlink_to(tmp_path / "elsewhere")
    assert requirements([], tmp_path) == []
