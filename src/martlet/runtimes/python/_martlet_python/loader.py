"""Finds the handler in the user's code and imports it."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

from .failures import Failure

USUAL_MODULES = ("handler", "main", "app", "function", "index")
"""Where a handler is looked for whose module is not named, in this order."""

DEFAULT_HANDLER = "handle"
_OTHER_HANDLERS = ("app", "application", "main")
_SOURCES = "src"
_COMPILED = "__pycache__"
_CACHE_TAG = sys.implementation.cache_tag


class HandlerNotFound(Exception):
    """The code was loaded, or could be, and has no such handler."""


def load(code: str, handler: str, files: list[str]) -> Any:
    """Returns the object that ``handler`` names.

    Args:
        code: the folder with the user's code; it is on ``sys.path``.
        handler: ``name``, ``module.name``, ``module:name``, ``file.py`` or ``file.py:name``. A bare name is looked up
            in the first of `USUAL_MODULES` that exists, in the code or else in its folder ``src``, or in the only
            module there is. Where the default ``handle`` is not found, a WSGI or ASGI application called ``app`` or
            ``application`` is taken, or the function ``main`` that Open Runtimes has.
        files: what is in that folder.

    Raises:
        HandlerNotFound: there is no such module or no such name in it.
        BaseException: whatever the user's code raised while it was imported.
    """
    module_name, names = _split(handler)
    if module_name is None:
        module_name = _usual_module(code, files, handler)
    try:
        module = _import(module_name, code, files)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            message = f"handler {handler!r} names the module {error.name!r}, and {_listed(code)}"
            raise HandlerNotFound(message) from None
        raise
    sys.argv = [getattr(module, "__file__", None) or module_name]
    candidates = [names, *_OTHER_HANDLERS] if names == DEFAULT_HANDLER else [names]
    for candidate in candidates:
        try:
            return _attribute(module, candidate)
        except AttributeError:
            continue
    raise HandlerNotFound(
        f"{handler!r} was not found: {module_name.replace('.', '/')}.py has no {names!r}; "
        f"it has {_callables(module)}"
    )


def _import(name: str, code: str, files: list[str]) -> ModuleType:
    """Imports a module; one that is a file right in the code takes neither a search nor all of the machinery."""
    if name in sys.modules or f"{name}.py" not in files:
        return importlib.import_module(name)
    place = f"{code}/{name}.py"
    return run(name, place, None if _COMPILED in files else read(place))


def read(place: str) -> bytes:
    """Returns what is in a file."""
    with io.FileIO(place) as file:
        return file.readall()


def run(name: str, place: str, source: bytes | None) -> ModuleType:
    """Makes the module that is the file ``place``, and runs it; without ``source`` it may be compiled."""
    loader = SourceFileLoader(name, place)
    spec = ModuleSpec(name, loader, origin=place)
    spec.has_location = True
    module = sys.modules[name] = ModuleType(name)
    module.__spec__, module.__loader__, module.__package__ = spec, loader, ""
    names = module.__dict__
    folder, _, _ = place.rpartition("/")
    names["__file__"], names["__cached__"] = place, f"{folder}/{_COMPILED}/{name}.{_CACHE_TAG}.pyc"
    try:
        if source is None:
            loader.exec_module(module)
        else:
            exec(compile(source, place, "exec", dont_inherit=True), names)  # noqa: S102
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return sys.modules[name]


def explain(error: BaseException, code: str) -> Failure:
    """Describes why the code did not load, with what to do about it where that is known."""
    failure = Failure.of(error)
    if isinstance(error, SyntaxError) and error.filename is not None:
        place = os.path.relpath(error.filename, code)
        return failure._replace(message=f"{place}, line {error.lineno}: {error.msg}")
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        package = error.name.partition(".")[0]
        if package not in _modules(os.listdir(code)) and package not in sys.stdlib_module_names:
            return failure._replace(message=f"{failure.message}; add it to `dependencies`")
    if isinstance(error, HandlerNotFound):
        return failure._replace(traceback="")
    return failure


def _split(handler: str) -> tuple[str | None, str]:
    module, _, names = handler.partition(":")
    if module.endswith(".py"):
        return module.removesuffix(".py").strip("/").replace("/", "."), names or DEFAULT_HANDLER
    if names:
        return module, names
    module, _, name = handler.rpartition(".")
    return module or None, name


def _usual_module(code: str, files: list[str], handler: str) -> str:
    for name in USUAL_MODULES:
        if f"{name}.py" in files:
            return name
    sources = os.path.join(code, _SOURCES)
    inside = os.listdir(sources) if os.path.isdir(sources) else []
    for name in USUAL_MODULES:
        if f"{name}.py" in inside:
            return f"{_SOURCES}.{name}"
    modules = _modules(files)
    if len(modules) == 1:
        return modules[0]
    usual = ", ".join(f"{name}.py" for name in USUAL_MODULES)
    raise HandlerNotFound(
        f"no module to look for {handler!r} in: there is none of {usual}, and {_listed(code)}; "
        "name the module in the handler (module.handle)"
    )


def _modules(files: list[str]) -> list[str]:
    return sorted(name.removesuffix(".py") for name in files if name.endswith(".py"))


def _listed(code: str) -> str:
    names = sorted(os.listdir(code))
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"the code has {shown}" if names else "the code is empty"


def _attribute(module: Any, names: str) -> Any:
    found = module
    for name in names.split("."):
        found = getattr(found, name)
    return found


def _callables(module: Any) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and inspect.getmodule(value) is module
    ]
    return ", ".join(names[:20]) or "no function at all"
