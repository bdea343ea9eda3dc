"""The catalogue says which runtimes there are, finds the versions of their toolchains, and refuses all others."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from martlet.errors import Invalid
from martlet.model import FunctionConfig
from martlet.runtimes import INTERPRETER, Absent, Catalogue
from martlet.runtimes.description import read_description
from martlet.runtimes.discovery import remedy
from martlet.runtimes.runtime import SHIPPED
from martlet.settings import SystemSettings

EXACT = f"python{sys.version_info.major}.{sys.version_info.minor}"
OTHER = f"python{sys.version_info.major}.{sys.version_info.minor + 1}"

PARROT = """
name = "parrot"
title = "Parrot"
version_parts = 1
announced_by = ["*.parrot", "src/main.beak"]
inline_file = "handler.parrot"
[toolchain]
programs = ["parrot", "parrot[0-9]*"]
version = ["{program}", "--version"]
least = "2"
shows = 1
debian = ["parrot-minimal"]
hint = "teach one to speak"
[[toolchain.also]]
programs = ["squawk"]
for = "builds"
debian = ["squawk-dev"]
[start]
command = ["{program}", "{runtime}/shim", "{runtimes}/node", "--python={interpreter}"]
environment = { BEAK = "{squawk}" }
"""


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.load()


class Machine:
    """A platform's folders, and the programs in them."""

    def __init__(self, folder: Path) -> None:
        self.settings = SystemSettings(
            function_storage_path=folder / "data",
            runtimes_path=folder / "runtimes",
            toolchains_path=(folder / "toolchains",),
        )
        self.runtimes, self.toolchains = folder / "runtimes", folder / "toolchains"
        for made in (self.runtimes, self.toolchains, self.settings.function_storage_path):
            made.mkdir()

    def describe(self, text: str = PARROT, name: str = "parrot") -> Path:
        (self.runtimes / name).mkdir()
        file = self.runtimes / name / "runtime.toml"
        file.write_text(text)
        return file

    def install(self, place: str, says: str, code: int = 0) -> Path:
        """Makes a program that says its version, and on a file beside it how often it was asked."""
        program = self.toolchains / place
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho asked >> "$0.asked"\necho "{says}" >&2\nexit {code}\n')
        program.chmod(0o755)
        return program

    def catalogue(self) -> Catalogue:
        return Catalogue.of(self.settings)

    def names(self) -> dict[str, str]:
        """The versions that names of the parrot answer with."""
        return {
            name: runtime.version
            for runtime in self.catalogue().available()
            if runtime.description.name == "parrot"
            for name in runtime.names
        }

    def absent(self) -> list[Absent]:
        """What there is no runtime of, besides the languages that come with Martlet."""
        return [absent for absent in self.catalogue().absent() if not (SHIPPED / absent.name).is_dir()]

    def reason(self) -> str:
        """Why there is no parrot."""
        (absent,) = self.absent()
        with pytest.raises(Invalid) as refused:
            self.catalogue().resolve(absent.name)
        assert absent.reason in refused.value.detail
        assert (absent.remedy or "") in refused.value.detail
        return f"{absent.reason}: {absent.remedy}"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


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


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*/runtime.toml")), ids=lambda file: file.parent.name)
def test_a_runtime_that_comes_with_martlet_is_what_its_folder_is_called_and_can_be_had(file: Path) -> None:
    description, folder = read_description(file), file.parent
    assert description.name == folder.name
    toolchain = description.toolchain
    for program in () if toolchain is None else (toolchain, *toolchain.also):
        assert program.programs == ("{interpreter}",) or remedy([program]) or (folder / "toolchain").exists()
    if description.start.module is not None:
        assert (folder / description.start.module / "__init__.py").is_file()
    for text in (
        *(description.start.command or ()),
        *(description.build.command if description.build else ()),
    ):
        assert (folder / text.removeprefix("{runtime}/")).exists() or not text.startswith("{runtime}/")


def test_the_interpreter_is_the_one_it_is_said_to_be_and_has_none_of_our_packages(
    catalogue: Catalogue,
) -> None:
    program = (
        "import sys, platform, importlib.util as u; print(platform.python_version(), u.find_spec('pydantic'))"
    )
    output = subprocess.check_output([INTERPRETER, "-I", "-S", "-c", program], text=True)
    assert output.split() == [catalogue.resolve("python").version, "None"]


def test_every_version_that_is_found_is_a_runtime_and_the_newest_answers_to_the_short_name(
    machine: Machine,
) -> None:
    machine.describe()
    machine.install("old/bin/parrot", "parrot 2.9.1 (ancient 1.0)")
    machine.install("new/bin/parrot", "This is parrot, version 10.2")
    machine.install("newer/parrot10", "10.10.0")
    assert machine.names() == {"parrot": "10.10.0", "parrot10": "10.10.0", "parrot2": "2.9.1"}


def test_programs_are_found_in_path_where_no_folder_of_toolchains_has_them(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.describe()
    program = machine.install("../elsewhere/bin/parrot", "3.0.1")
    assert machine.names() == {}
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert machine.names() == {"parrot": "3.0.1", "parrot3": "3.0.1"}
    machine.install("bin/parrot", "3.0.1")
    assert machine.catalogue().resolve("parrot").program == machine.toolchains / "bin/parrot"


@pytest.mark.parametrize(
    "place", ["bin/parrot", "three/bin/parrot", "three/parrot", "node_modules/.bin/parrot"]
)
def test_the_usual_places_of_a_folder_of_toolchains_are_looked_in(machine: Machine, place: str) -> None:
    machine.describe()
    machine.install(place, "3.1")
    assert machine.names() == {"parrot": "3.1", "parrot3": "3.1"}


def test_a_program_may_be_named_by_its_path(machine: Machine) -> None:
    machine.describe(PARROT.replace('"parrot",', '"node_modules/@birds/*/parrot",'))
    machine.install("node_modules/@birds/parrot-x64/parrot", "4.0")
    assert machine.names() == {"parrot": "4.0", "parrot4": "4.0"}


def test_the_program_is_what_links_lead_to_and_its_folder_is_shown(machine: Machine) -> None:
    machine.describe()
    program = machine.install("parrot-3/bin/parrot", "3.1")
    squawk = machine.install("squawk-1/lib/squawk", "1.1")
    (machine.toolchains / "bin").mkdir()
    (machine.toolchains / "bin/parrot").symlink_to(program)
    (machine.toolchains / "bin/squawk").symlink_to(squawk)
    runtime = machine.catalogue().resolve("parrot")
    assert (runtime.program, runtime.programs) == (program, {"squawk": squawk})
    assert runtime.shown == (machine.toolchains / "parrot-3",)
    assert runtime.shown_to_builds == (machine.toolchains / "parrot-3", squawk.parent), "squawk is for builds"
    assert runtime.builds


def test_folders_of_settings_that_are_there_are_shown(machine: Machine) -> None:
    machine.describe(PARROT.replace("shows = 1", 'shows = 1\netc = ["ssl", "no-such-folder", "passwd"]'))
    machine.install("parrot-3/bin/parrot", "3.1")
    assert machine.catalogue().resolve("parrot").shown == (machine.toolchains / "parrot-3", Path("/etc/ssl"))


def test_what_is_between_braces_is_filled_for_a_sandbox_or_for_the_host(machine: Machine) -> None:
    folder = machine.describe().parent
    program, squawk = machine.install("p/bin/parrot", "3.1"), machine.install("p/bin/squawk", "1.1")
    runtime = machine.catalogue().resolve("parrot")
    command = runtime.description.start.command
    assert command is not None
    python = f"--python={INTERPRETER}"
    assert runtime.command(command) == [str(program), "/.runtime/shim", "/.runtimes/node", python]
    shipped = Catalogue.load().resolve("python").folder.parent
    assert runtime.command(command, confined=False) == [
        str(program),
        f"{folder}/shim",
        f"{shipped}/node",
        python,
    ]
    assert runtime.environment() == {"BEAK": str(squawk)}


def test_a_program_for_builds_may_be_missing_and_one_to_run_may_not(machine: Machine) -> None:
    description = machine.describe()
    machine.install("p/bin/parrot", "3.1")
    runtime = machine.catalogue().resolve("parrot")
    assert not runtime.builds
    assert [program.debian for program in runtime.lacks] == [("squawk-dev",)]
    with pytest.raises(Invalid, match="squawk"):
        runtime.command(["sh", "{squawk}"])
    description.write_text(PARROT.replace('"builds"', '"runs"').replace("{squawk}", ""))
    assert "no squawk" in machine.reason()
    assert "apt-get install squawk-dev" in machine.reason()


def test_further_programs_are_those_beside_the_toolchain(machine: Machine) -> None:
    machine.describe()
    for version in ("2", "3"):
        machine.install(f"p{version}/bin/parrot", f"{version}.0")
        machine.install(f"p{version}/bin/squawk", "1.0")
    catalogue = machine.catalogue()
    for version in ("2", "3"):
        squawk = catalogue.resolve(f"parrot{version}").programs["squawk"]
        assert squawk == machine.toolchains / f"p{version}/bin/squawk"


def test_a_missing_toolchain_is_told_with_what_to_install(machine: Machine) -> None:
    machine.describe()
    reason = machine.reason()
    assert f"there is no parrot or parrot[0-9]* in PATH or {machine.toolchains}" in reason
    assert "apt-get install parrot-minimal; or teach one to speak" in reason


def test_a_toolchain_that_is_too_old_is_told_with_what_is_the_least(machine: Machine) -> None:
    machine.describe()
    program = machine.install("bin/parrot", "parrot 1.99.1")
    assert f"{program} is version 1.99.1, and 2 is the least" in machine.reason()


@pytest.mark.parametrize(("says", "code"), [("no number", 0), ("error 17", 1)])
def test_a_program_that_does_not_say_its_version_is_none(machine: Machine, says: str, code: int) -> None:
    machine.describe()
    machine.install("bin/parrot", says, code)
    assert "does not say a version" in machine.reason()


def test_a_folder_with_all_and_sundry_is_never_shown(machine: Machine, tmp_path: Path) -> None:
    machine.describe(PARROT.replace("shows = 1", "shows = 2"))
    machine.install("bin/parrot", "3.1")  # two above its own is where the data folder is, too
    assert f"functions would see all of {tmp_path}" in machine.reason()


def test_programs_are_asked_for_their_version_once_until_they_change(machine: Machine) -> None:
    machine.describe()
    program = machine.install("bin/parrot", "3.1")
    asked = Path(f"{program}.asked")
    assert machine.names() == machine.names() == {"parrot": "3.1", "parrot3": "3.1"}
    assert asked.read_text() == "asked\n"
    machine.install("bin/parrot", "4.0.0")
    assert machine.names() == {"parrot": "4.0.0", "parrot4": "4.0.0"}
    assert asked.read_text() == "asked\nasked\n"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}', "\0"])
def test_a_damaged_record_of_versions_is_made_anew(machine: Machine, damage: str) -> None:
    machine.describe()
    machine.install("bin/parrot", "3.1")
    (machine.settings.function_storage_path / "toolchains.json").write_text(damage)
    assert machine.names() == machine.names() == {"parrot": "3.1", "parrot3": "3.1"}
    assert Path(f"{machine.toolchains}/bin/parrot.asked").read_text() == "asked\n"


def test_a_runtime_that_is_dropped_in_later_is_found_when_it_is_named(machine: Machine) -> None:
    catalogue = machine.catalogue()
    with pytest.raises(Invalid):
        catalogue.resolve("parrot")
    machine.describe()
    machine.install("p/bin/parrot", "3.1")
    assert catalogue.resolve("parrot").version == "3.1"


def test_a_toolchain_that_is_installed_later_is_found_on_refresh(machine: Machine) -> None:
    machine.describe()
    machine.install("p2/bin/parrot", "2.1")
    catalogue = machine.catalogue()
    machine.install("p3/bin/parrot", "3.1")
    assert catalogue.resolve("parrot").version == "2.1"
    catalogue.refresh()
    assert catalogue.resolve("parrot").version == "3.1"


def test_two_languages_of_one_name_are_refused_with_both_files(machine: Machine) -> None:
    machine.install("p/bin/parrot", "3.1")
    first, second = machine.describe(), machine.describe(name="zz")
    assert machine.names() == {"parrot": "3.1", "parrot3": "3.1"}
    (absent,) = machine.absent()
    assert str(first) in absent.reason
    assert str(second) in absent.reason


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("inline_file =", "inline_fil ="), "inline_fil: there is no such key; did you mean inline_file?"),
        (
            ("least =", "frog ="),
            "toolchain.frog: there is no such key; known are alone, also, debian, etc, hint",
        ),
        (('for = "builds"', 'for = "fun"'), "toolchain.also.0.for: "),
        (("[start]", "[start]\nmodule = 'x'"), "start: it takes either command or module"),
        (
            ("{squawk}", "{squeak}"),
            "{squeak} stands for nothing; there are {interpreter}, {program}, {runtime}",
        ),
        (('"*.parrot"', '"../*.parrot"'), "announced_by.0: '../*.parrot' is no pattern of a file"),
        (('"parrot"\ntitle', '"parrot4"\ntitle'), "name: "),
        (("shows = 1", "shows = '1'"), "toolchain.shows: "),
        (("title", "title ="), "is not TOML"),
    ],
)
def test_a_broken_description_is_told_with_its_file_and_stops_no_other(
    machine: Machine, change: tuple[str, str], complaint: str
) -> None:
    text = PARROT.replace(*change)
    assert text != PARROT
    file = machine.describe(text)
    catalogue = machine.catalogue()
    (absent,) = machine.absent()
    assert absent.reason.startswith(f"{file}")
    assert complaint in absent.reason
    assert catalogue.resolve("python").name == EXACT


def package(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("files", [["handler.py"], ["README", "requirements.txt"], ["pyproject.toml"]])
def test_files_announce_the_runtime(catalogue: Catalogue, tmp_path: Path, files: list[str]) -> None:
    assert catalogue.detect(package(tmp_path, *files)).name == EXACT


@pytest.mark.parametrize("files", [[], ["README"], ["py"], ["code/handler.py"], ["x.py/README"]])
def test_files_that_announce_none_are_refused_with_what_would(
    catalogue: Catalogue, tmp_path: Path, files: list[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        catalogue.detect(package(tmp_path, *files))
    assert refused.value.field == "config.runtime"
    assert "*.py, requirements.txt, pyproject.toml" in refused.value.detail


def test_of_several_that_are_announced_the_lowest_rank_wins(machine: Machine, tmp_path: Path) -> None:
    files = package(tmp_path / "code", "src/main.beak", "handler.py")
    machine.install("p/bin/parrot", "3.1")
    description = machine.describe(f"rank = 1\n{PARROT}")
    catalogue = machine.catalogue()
    assert catalogue.detect(files).name == "parrot3"
    description.write_text(f"rank = 99\n{PARROT}")
    assert catalogue.detect(files).name == EXACT


def test_a_folder_announces_a_runtime_by_its_very_name_only(machine: Machine, tmp_path: Path) -> None:
    machine.install("p/bin/parrot", "3.1")
    machine.describe(PARROT.replace('"src/main.beak"', '"src/beaks"'))
    assert machine.catalogue().detect(package(tmp_path / "code", "src/beaks/README")).name == "parrot3"
    with pytest.raises(Invalid):
        machine.catalogue().detect(package(tmp_path / "other", "x.parrot/README"))


def test_a_language_that_is_announced_and_missing_is_not_replaced_by_another(
    machine: Machine, tmp_path: Path
) -> None:
    machine.describe(f"rank = 1\n{PARROT}")
    with pytest.raises(Invalid, match="apt-get install parrot-minimal"):
        machine.catalogue().detect(package(tmp_path / "code", "src/main.beak", "handler.py"))
