"""How a cell enters its sandbox, step by step: decided in the zygote, once for all cells of a kind."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from martlet.sandbox import landlock, namespaces, network, privileges, root
from martlet.sandbox.landlock import Access
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.script import Run, Script, Slot
from martlet.sandbox.seccomp.filter import Filter

CELL_SCRATCH = 1024 * 1024
"""Bytes that a cell's scratch space holds while it has no code."""
_OUTPUT, _ERRORS = 1, 2


@dataclass(frozen=True, slots=True)
class House:
    """What all cells of a zygote have alike.

    Attributes:
        lifeline: ties them to the zygote.
        confined: whether they have namespaces and a private root.
        mounts_as_user: whether they are their sandbox's user before they have code.
        shown: the folders that they see beside the system's.
        kept: descriptors that they have from the zygote.
        rules: what Landlock is to allow, by path.
        ruleset: the descriptor that the rules are to have, where the kernel has any; one that nothing else takes.
        filter: of system calls, which they have from their zygote, and what is forked for them elsewhere loads itself;
            None where there is none.
        numbers: of system calls, by name.
        keeps_doors: whether they keep the doors of their cgroups, for what is forked for them elsewhere.
    """

    lifeline: Lifeline
    confined: bool
    mounts_as_user: bool
    shown: Collection[str]
    kept: Collection[int]
    rules: Mapping[str, Access]
    ruleset: int
    filter: Filter | None
    numbers: Mapping[str, int]
    keeps_doors: bool = False


class Kind(NamedTuple):
    """What cells of a zygote differ in: `Belongings` say which of these a cell is.

    Attributes:
        network: the name of its network.
        prepared: whether that is a namespace that somebody has made.
        doors: how many cgroups it joins.
        observer: the descriptor that it keeps until it is confined.
    """

    network: str
    prepared: bool
    doors: int
    observer: int | None


def beginning(house: House) -> Script:
    """Returns the steps that are the same for all cells of a house, whoever they are for."""
    script = Script(house.numbers)
    script.call("close", house.lifeline.writer)
    house.lifeline.hold_by(script)
    script.call("setsid")
    if house.confined:
        namespaces.separate(script)
        root.mount_proc(script)
        root.mount_scratch(CELL_SCRATCH, calls=script)
        root.show_in_scratch(script, house.shown)
    if landlock.version():
        landlock.rule_by(script, house.rules, house.ruleset)
    privileges.forbid_new_privileges(script)
    return script


class Entrance:
    """The steps of one kind of cell, the numbers of one cell filled in by the zygote.

    Attributes:
        listener: where the cell takes requests: given as the zygote knows it.
        log: where it prints.
        doors: of its cgroups.
        namespace: of its network, where one is made for it.
        identity: user and group id.
        kept_doors: the descriptors that the doors have once it has entered, where it keeps them.
    """

    def __init__(self, house: House, beginning: Script, kind: Kind, place: int, nothing: int) -> None:
        """Writes the steps down.

        Args:
            house: what it enters.
            beginning: the steps of `beginning`.
            kind: of cell.
            place: the descriptor that the listener is to have; one that nothing else takes.
            nothing: a descriptor of ``/dev/null``.
        """
        self.listener, self.log, self.namespace, self.identity = (Slot() for _ in range(4))
        self.doors = [Slot() for _ in range(kind.doors)]
        self.kept_doors = [os.dup(nothing) for _ in self.doors if house.keeps_doors]
        self._joining, self._beginning, script = Script(house.numbers), beginning, Script(house.numbers)
        for door in self.doors:
            self._joining.call("write", door, b"0", 1)
        self._rest = script
        if house.confined:
            network.enter_by(script, kind.network, self.namespace if kind.prepared else None)
            if kind.network == network.HOST:
                root.show_resolvers_of_host(script)
        self._keep_only(house, kind, place, nothing)
        if landlock.version():
            # Which programs open anew, as /dev/stdout.
            landlock.rule_open_by(script, _OUTPUT, landlock.WRITE_FILES, house.ruleset)
        if house.mounts_as_user:
            privileges.become_who_mounts(script, self.identity)
            house.lifeline.hold_by(script)
            script.call("close", house.lifeline.reader)

    def go(self, *, begun: bool, run: Run) -> None:
        """Enters; joins the cgroups first, to which all that it takes is counted from then on. Raises OSError.

        Args:
            begun: whether the beginning is done.
            run: see `Run`.
        """
        run(self._joining)
        if not begun:
            run(self._beginning)
        run(self._rest)

    def _keep_only(self, house: House, kind: Kind, place: int, nothing: int) -> None:
        script = self._rest
        script.call("dup3", nothing, 0, 0)
        script.call("dup3", self.log, _OUTPUT, 0)
        script.call("dup3", self.log, _ERRORS, 0)
        script.call("dup3", self.listener, place, os.O_CLOEXEC)
        for door, number in zip(self.doors, self.kept_doors, strict=False):
            script.call("dup3", door, number, os.O_CLOEXEC)
        lowest = _ERRORS + 1
        observer = () if kind.observer is None else (kind.observer,)
        rules = (house.ruleset,) if landlock.version() else ()
        own = {place, house.lifeline.reader, *rules, *self.kept_doors, *observer}
        for kept in sorted(own.union(house.kept)):
            if kept > lowest:
                script.call("close_range", lowest, kept - 1, 0)
            lowest = kept + 1
        script.call("close_range", lowest, 0xFFFFFFFF, 0)
