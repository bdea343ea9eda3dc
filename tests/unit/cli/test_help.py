"""What ``martlet --help`` promises: everything is explained, and loading is lazy."""

import subprocess
import sys

import pytest
import typer

from martlet.cli.app import app
from martlet.cli.exits import ExitCode, exit_code_of
from martlet.errors import every_error

HEAVY = (
    "fastapi",
    "httpx2",
    "martlet.config",
    "martlet.serve",
    "martlet.settings",
    "rich.progress",
    "uvloop",
    "yaml",
)


def commands(command=None, path=()):
    """Every command of the tree, with the words that call it."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_argument_and_option_is_explained(path):
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_works_everywhere(martlet, path):
    result = martlet(*path, "--help")
    assert result.code == 0
    assert "Usage:" in result.out
    assert result.err == ""


@pytest.mark.parametrize("path", [path for path in COMMANDS if path and path[-1] == "list"], ids=" ".join)
def test_every_listing_has_json_for_programs(path):
    assert "--json" in {option for parameter in COMMANDS[path].params for option in parameter.opts}


def test_an_unknown_command_is_a_wrong_usage(martlet):
    result = martlet("deplo")
    assert result.code == 2
    assert "deplo" in result.err


def test_exit_codes_are_told_in_the_help(martlet):
    text = " ".join(martlet("--help").out.split())
    for code in ExitCode:
        assert f"{code.value} {code.meaning}" in text


def test_every_error_of_the_platform_has_an_exit_code_that_is_no_success():
    for error in every_error():
        assert exit_code_of(error) is not ExitCode.DONE


def test_the_command_line_loads_nothing_heavy_before_it_is_needed():
    code = f"import sys, martlet.cli; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_completion_can_be_shown_for_shells(martlet, monkeypatch):
    finished = subprocess.run(
        [sys.executable, "-m", "martlet.cli", "--show-completion", "bash"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0
    assert "complete" in finished.stdout
