"""What becomes of a cell when it gets code, step by step: decided in the zygote, once for all of its cells."""

from __future__ import annotations

import os
from collections.abc import Mapping

from martlet.sandbox import landlock, privileges, root
from martlet.sandbox.rlimits import Limits
from martlet.sandbox.script import Run, Script, Slot, text
from martlet.sandbox.seccomp.filter import Filter

_LONGEST_PATH = 4096
_LONGEST_NAME = 64
_THIS_PROCESS = 0


class Confining:
    """The steps, each for itself: who a cell becomes in between depends on what the host gives. What is to ``run`` them
    may rehearse them.

    Args:
        numbers: of system calls, by name.
        filter: of system calls, what of it is not in force before there is code; None where they are not filtered.
    """

    def __init__(self, numbers: Mapping[str, int], filter: Filter | None) -> None:  # noqa: A002
        self._code, self._dependencies = text(_LONGEST_PATH), text(_LONGEST_PATH)
        self._bounds, self._hostname, self._length = text(_LONGEST_NAME), text(_LONGEST_NAME + 1), Slot()
        self._alone, self._together = Script(numbers), Script(numbers)
        for script, dependencies in ((self._alone, None), (self._together, self._dependencies)):
            root.mount_code(script, self._code, dependencies)
            root.resize_scratch_by(script, self._bounds)
            script.call("sethostname", self._hostname, self._length)
            script.call("chdir", root.FUNCTION)
        self._powerless = Script(numbers)
        privileges.drop_capabilities(self._powerless)
        self._limited, self._process = Script(numbers), Slot()
        self._limits = Limits(self._limited, self._process)
        self._locked, self._rules, self._heard = Script(numbers), Slot(), Slot()
        if landlock.version():
            landlock.enforce_by(self._locked, self._rules)
        if filter is not None:
            filter.load_by(self._locked, self._heard)
        self._filtered = filter is not None

    def show(
        self, code: str, dependencies: str | None, scratch: int, hostname: str, run: Run = Script.run
    ) -> None:
        """Shows the packages of these names, sizes the scratch space, names the machine, and goes to the code."""
        self._code.value = os.fsencode(f"{root.PACKAGES}/{code}")
        self._bounds.value = root.bounds(scratch).encode()
        self._hostname.value = name = hostname.encode()
        self._length.value = len(name)
        if dependencies is None:
            run(self._alone)
        else:
            self._dependencies.value = os.fsencode(f"{root.PACKAGES}/{dependencies}")
            run(self._together)

    def drop_power(self, run: Run = Script.run) -> None:
        """Empties every set of capabilities; the user stays."""
        run(self._powerless)

    def limit(
        self,
        open_files: int,
        file_bytes: int,
        processes: int | None,
        process: int = _THIS_PROCESS,
        run: Run = Script.run,
    ) -> None:
        """Does what `rlimits.apply` does."""
        self._process.value = process
        self._limits.fill(open_files, file_bytes, processes)
        run(self._limited)

    def lock(self, rules: int | None, run: Run = Script.run) -> int | None:
        """Closes both walls, with the rules of Landlock that have this descriptor, which it closes.

        Returns:
            What `Filter.load` does; None without a filter.
        """
        self._rules.value = rules or 0
        run(self._locked)
        return self._heard.value if self._filtered else None

    def lock_by(self, rules: int | None) -> Script:
        """Returns what `lock` does, written down for another process, in which the rules have this descriptor."""
        self._rules.value = rules or 0
        return self._locked
