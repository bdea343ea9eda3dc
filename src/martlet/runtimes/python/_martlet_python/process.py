"""Makes a process that ran the platform's code until now look like one that was started for the function."""

from __future__ import annotations

import importlib
import os
import random
import signal
import site
import sys
import time
from importlib.machinery import ExtensionFileLoader, SourceFileLoader
from pathlib import Path
from types import ModuleType

from .spec import Spec

_STANDARD_LIBRARY = Path(os.__file__).parent
_BASE_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}


def become(spec: Spec) -> None:
    """Gives the process the function's environment, folder and import path, and randomness of its own."""
    os.chdir(spec.code)
    _set_environment(spec)
    _set_import_path(spec)
    _forget_modules_of_the_platform()
    _forget_shadowed_modules(spec.code)
    _reseed()
    sys.argv = [spec.code]
    sys.modules["__main__"] = ModuleType("__main__")
    sys.dont_write_bytecode = True  # the code is mounted read-only


def reset_signals() -> None:
    """Undoes what the parent did to signals; as in every Python program, SIGPIPE is an exception instead."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number != signal.SIGPIPE and signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _set_environment(spec: Spec) -> None:
    os.environ.clear()
    os.environ.update(_BASE_ENVIRONMENT)
    os.environ.update({"MARTLET_FUNCTION": spec.function, "MARTLET_REVISION": spec.revision})
    os.environ.update(spec.environment)
    time.tzset()


def _set_import_path(spec: Spec) -> None:
    """The order every Python program knows: its own folder, the standard library, installed packages."""
    library = [str(_STANDARD_LIBRARY), str(_STANDARD_LIBRARY / "lib-dynload")]
    sys.path[:] = [spec.code, *(path for path in library if os.path.isdir(path))]
    if spec.dependencies is not None:
        site.addsitedir(spec.dependencies)
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()


def _forget_modules_of_the_platform() -> None:
    """Lets ``import martlet`` find the user's module of that name, and not what the parent process is made of."""
    kept = sys.stdlib_module_names | {__package__}
    for name in [name for name in sys.modules if name.partition(".")[0] not in kept]:
        del sys.modules[name]


def _forget_shadowed_modules(code: str) -> None:
    """Lets a file of the user's win over a module of the standard library that the cell has imported already.

    So it is in every Python program, and it must not depend on what happens to be warm. The library's own modules keep
    the one they have.
    """
    for name in _modules_in(code) & sys.stdlib_module_names:
        loader = getattr(sys.modules.get(name), "__loader__", None)
        if isinstance(loader, SourceFileLoader | ExtensionFileLoader):  # others come before sys.path anyway
            for loaded in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
                del sys.modules[loaded]


def _modules_in(code: str) -> set[str]:
    return {
        entry.removesuffix(".py")
        for entry in os.listdir(code)
        if entry.endswith(".py") or os.path.isfile(os.path.join(code, entry, "__init__.py"))
    }


def _reseed() -> None:
    """Instances that were forked from one parent must not draw the same numbers."""
    random.seed()
    if "ssl" in sys.modules:
        sys.modules["ssl"].RAND_add(os.urandom(32), 32.0)
