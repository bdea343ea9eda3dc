"""The catalogue says which runtimes there are, and refuses those there are not."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from martlet.errors import Invalid
from martlet.model import FunctionConfig
from martlet.runtimes import Catalogue

EXACT = f"python{sys.version_info.major}.{sys.version_info.minor}"
OTHER = f"python{sys.version_info.major}.{sys.version_info.minor + 1}"


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.mark.parametrize("name", ["python", "python3", EXACT])
def test_a_runtime_answers_to_its_language_and_to_the_beginnings_of_its_version(
    catalogue: Catalogue, name: str
) -> None:
    runtime = catalogue.resolve(name)
    assert (runtime.name, runtime.version) == (EXACT, platform.python_version())


def test_another_version_is_refused_and_the_message_lists_what_there_is(catalogue: Catalogue) -> None:
    with pytest.raises(Invalid) as refused:
        catalogue.resolve(OTHER)
    assert refused.value.field == "config.runtime"
    assert OTHER in refused.value.detail
    assert f"python, python3, {EXACT}" in refused.value.detail


def test_the_runtime_of_a_function_that_names_none_is_there(catalogue: Catalogue) -> None:
    assert catalogue.resolve(FunctionConfig().runtime) in catalogue.available()


def test_the_interpreter_is_the_one_it_is_said_to_be_and_has_none_of_our_packages(
    catalogue: Catalogue,
) -> None:
    runtime = catalogue.resolve("python")
    program = (
        "import sys, platform, importlib.util as u; print(platform.python_version(), u.find_spec('pydantic'))"
    )
    output = subprocess.check_output([runtime.interpreter, "-I", "-S", "-c", program], text=True)
    assert output.split() == [runtime.version, "None"]


def test_what_a_runtime_needs_lies_in_its_folder(catalogue: Catalogue) -> None:
    for runtime in catalogue.available():
        assert (runtime.folder / runtime.description.program).is_file()
        assert (runtime.folder / runtime.description.shim / "__init__.py").is_file()


@pytest.mark.parametrize("files", [["handler.py"], ["README", "requirements.txt"], ["pyproject.toml"]])
def test_files_announce_the_runtime(catalogue: Catalogue, files: list[str]) -> None:
    assert catalogue.detect(files).name == EXACT


@pytest.mark.parametrize("files", [[], ["main.go"], ["py"]])
def test_files_that_announce_none_are_refused_with_what_would(catalogue: Catalogue, files: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        catalogue.detect(files)
    assert refused.value.field == "config.runtime"
    assert "*.py, requirements.txt, pyproject.toml" in refused.value.detail


def test_a_description_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    source = (Catalogue.load().resolve("python").folder / "runtime.toml").read_text()
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "runtime.toml").write_text(f"{source}\nshim_ = 1\n")
    with pytest.raises(ValidationError):
        Catalogue.load(tmp_path)
