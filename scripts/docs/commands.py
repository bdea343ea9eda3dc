"""The reference of the command line, from the functions behind the commands and how they are annotated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_type_hints

from typer import Typer
from typer.models import ArgumentInfo, OptionInfo

from martlet.cli.app import app
from martlet.cli.exits import ExitCode
from scripts.docs import markdown
from scripts.docs.markdown import code, described


def reference() -> str:
    """Returns a section for each command."""
    return "\n\n".join(_section(path, command) for path, command in _commands("martlet", app))


def exit_codes() -> str:
    """Returns the table of exit codes."""
    return markdown.table(("code", "meaning"), [(str(each.value), each.meaning) for each in ExitCode])


def _commands(path: str, group: Typer) -> Iterator[tuple[str, Callable[..., Any]]]:
    callback = group.registered_callback
    if callback is not None and callback.callback is not None:
        yield path, callback.callback
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__}", command.callback
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from _commands(f"{path} {below.name}", below.typer_instance)


def _section(path: str, command: Callable[..., Any]) -> str:
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    lines = [f"### {path}", *(described(each, path) for each in paragraphs)]
    hints = get_type_hints(command, include_extras=True)
    rows = []
    for parameter in inspect.signature(command).parameters.values():
        kind, *metadata = get_args(hints[parameter.name]) or (None,)
        for info in metadata:
            if isinstance(info, OptionInfo | ArgumentInfo):
                name = _option(parameter.name, kind, info) if isinstance(info, OptionInfo) else info.metavar
                rows.append((code(name or parameter.name.upper()), _meaning(path, parameter, info)))
    if rows:
        lines.append(markdown.table(("argument or option", "meaning"), rows))
    return "\n\n".join(lines)


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    flag = kind is bool or bool in get_args(kind)
    # In an annotation the first spelling stands where a default could: `Option("-f", "--file")`.
    spellings = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
    names = ", ".join(spellings or [f"--{name.replace('_', '-')}"])
    return names if flag else f"{names} {info.metavar or name.upper()}"


def _meaning(path: str, parameter: inspect.Parameter, info: OptionInfo | ArgumentInfo) -> str:
    text = described(info.help, f"{path} {parameter.name}")
    default = parameter.default
    if default is not parameter.empty and default not in (None, False) and not isinstance(default, list):
        text += f" Default: {code(default)}."
    if info.envvar:
        text += f" Environment: {code(info.envvar)}."
    return text
