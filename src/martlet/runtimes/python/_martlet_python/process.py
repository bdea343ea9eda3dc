"""Makes a process that ran the platform's code until now look like one that was started for the function."""

from __future__ import annotations

import os
import random
import signal
import site
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from .spec import Spec

# What `signal` wraps in enums, and `random` in methods, whose memory a fork would copy that goes through them.
import _random  # isort: skip
import _signal  # type: ignore[import-not-found]  # isort: skip

_LIBRARY = Path(os.__file__).parent
_STANDARD_LIBRARY = [str(path) for path in (_LIBRARY, _LIBRARY / "lib-dynload") if path.is_dir()]
_SIGNALS = tuple(
    map(int, (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM))
)
_of_the_parent: dict[str, ModuleType] = {}
"""Modules that are none of the function's business. Kept, because who prepares goes on to use them."""
_main = ModuleType("__main__")
_SIGTERM = int(signal.SIGTERM)

_seed = partial(_random.Random.seed, random._inst)
"""What of `random.seed` matters where nothing has been drawn before: a fork copies the memory of the rest."""

_BASE_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}


def prepare() -> None:
    """Does what is the same for every function, once, in the process that cells are forked from.

    A page of memory that a fork writes to is copied, which costs it more time than the work itself.
    """
    if _of_the_parent:
        return
    kept = sys.stdlib_module_names | {__package__}
    strangers = {name: module for name, module in sys.modules.items() if name.partition(".")[0] not in kept}
    _of_the_parent.update(strangers, __main__=sys.modules["__main__"])
    _forget_parent()
    os.environ.clear()
    os.environ.update(_BASE_ENVIRONMENT)
    time.tzset()
    sys.dont_write_bytecode = True  # the code is mounted read-only
    _keep_graceful_stop_from_forks()


def detach(on_sigterm: Callable[..., Any]) -> None:
    """Does in a cell what of `become` needs no code, before anybody waits for it.

    Args:
        on_sigterm: what handles that signal, in place of what the parent has for it.
    """
    reset_signals()
    _signal.signal(_SIGTERM, on_sigterm)
    if sys.modules["__main__"] is not _main:
        _forget_parent()


def _forget_parent() -> None:
    for name in _of_the_parent:
        sys.modules.pop(name, None)
    sys.modules["__main__"] = _main


def become(spec: Spec, files: list[str]) -> None:
    """Gives the process the function's environment, folder and import path, and randomness of its own.

    Args:
        spec: what it becomes.
        files: what is in the folder of the code.
    """
    os.chdir(spec.code)
    environment = os.environ  # whose `update` goes a longer way
    environment["MARTLET_FUNCTION"], environment["MARTLET_REVISION"] = spec.function, spec.revision
    for name, value in spec.environment.items():
        environment[name] = value
    if "TZ" in spec.environment:
        time.tzset()
    # The order every Python program knows: its own folder, the standard library, installed packages.
    sys.path[:] = [spec.code, *_STANDARD_LIBRARY]
    if spec.dependencies is not None:
        site.addsitedir(spec.dependencies)
    for name in files:
        if name.removesuffix(".py") in sys.stdlib_module_names:
            _forget_module(name, spec.code)
    _seed()  # instances that were forked from one parent must not draw the same numbers
    sys.argv = [spec.code]


def part(scratch: str) -> None:
    """Gives a fork of loaded code what its siblings must not have too: randomness, and a folder for temporary files.

    `random` and OpenSSL see to themselves in every fork, and `tempfile` draws other names in every process.
    """
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    # Time-based ids hold a node and a clock that a fork inherits: a random node (RFC 9562, 6.10), and not libuuid's.
    node = int.from_bytes(os.urandom(6), "big") | 1 << 40
    vars(uuid).update(_node=node, _last_timestamp=None, _generate_time_safe=None)
    os.mkdir(scratch, 0o700)
    os.environ["TMPDIR"] = scratch
    if os.environ.get("HOME") == _BASE_ENVIRONMENT["HOME"]:
        os.environ["HOME"] = scratch


def _keep_graceful_stop_from_forks() -> None:
    """What a function forks ends by SIGTERM, as the workers of a pool do: the graceful stop is the instance's alone.

    A signal that comes before that waits. There is no Python code in it, whose memory every fork would copy.
    """
    number = (_SIGTERM,)
    let_in = partial(_signal.pthread_sigmask, _signal.SIG_UNBLOCK, number)
    os.register_at_fork(
        before=partial(_signal.pthread_sigmask, _signal.SIG_BLOCK, number),
        after_in_parent=let_in,
        after_in_child=partial(_signal.signal, *number, _signal.SIG_DFL),
    )
    os.register_at_fork(after_in_child=let_in)


def reset_signals() -> None:
    """Undoes what the parent did to signals."""
    _signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def on_sigterm(handler: Callable[..., Any]) -> None:
    """Has the signal handled by ``handler``, which gets what every handler of a signal does."""
    _signal.signal(_SIGTERM, handler)


def _forget_module(file: str, code: str) -> None:
    """Lets an import of the user's find the user's module where the process knows another one by that name.

    That is what `detach` forgets, and the standard library that the parent imported: a file of the user's wins over
    it as in every Python program, whatever happens to be warm. The library's own modules keep the one they have.
    """
    name = file.removesuffix(".py")
    loader = getattr(sys.modules.get(name), "__loader__", None)
    if not isinstance(loader, SourceFileLoader | ExtensionFileLoader):  # others come before sys.path anyway
        return
    if name != file or os.path.isfile(os.path.join(code, name, "__init__.py")):
        for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[loaded]
