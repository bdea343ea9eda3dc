"""The program of a zygote: a warm runtime in its private root that forks cells when the lane asks.

It runs in the base interpreter, without the site folder, and sees nothing of Martlet's dependencies. It is a `parent`;
besides what all of them say:

    lane → zygote   {"op": "fork", "id", "network", "identity", "urgent"}
                        + listener, log, namespace of egress, cgroup doors
                    {"op": "signal", "id", "signal"}
    zygote → lane   {"event": "refused", "id", "error"}     no process can be forked
                    {"event": "failed", "id", "error"}      no sandbox can be made; the cell exits
                    {"event": "observed", "id"} + what is heard of the calls that an instance is denied
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from martlet.sandbox import (
    bedrock,
    cgroups,
    channel,
    landlock,
    libraries,
    namespaces,
    privileges,
    root,
    syscalls,
    users,
)
from martlet.sandbox.bedrock import Bedrock
from martlet.sandbox.entrance import House
from martlet.sandbox.launcher import Belongings, Confinement, Forks, Sandbox, allowed, is_late
from martlet.sandbox.lifeline import Lifeline
from martlet.sandbox.means import Means, Users
from martlet.sandbox.namespaces import PidNamespaces, fork_warm
from martlet.sandbox.network import EGRESS, NONE, Spare
from martlet.sandbox.parent import Parent, serve
from martlet.sandbox.program import Program
from martlet.sandbox.script import Run, Script
from martlet.sandbox.seccomp.filter import Filter
from martlet.sandbox.seccomp.policy import Policy
from martlet.sandbox.successor import Successor

# What `signal` wraps in enums, whose memory a fork would copy that goes through them.
import _signal  # type: ignore[import-not-found]  # isort: skip

_SIGCHLD = int(signal.SIGCHLD)
_LEARNT = (2, 16)
"""How many cells a zygote has forked when it has learnt something by that: what all need, and what many do."""
_HEAD_START = 0.01
"""Seconds that an urgent cell has the core of its lane before the zygote goes on: more than most take until they have
answered. News ends it sooner, so that in a row of starts nobody waits for another."""
_AF_UNIX, _SOCK_STREAM = int(socket.AF_UNIX), int(socket.SOCK_STREAM)
CONFINEMENT = "sandbox"
"""The member of the request to specialise that carries a `Confinement`."""
_OF_NOBODY = {CONFINEMENT: Confinement("", None, "", 0, 0, 0, every_cpu=False)._asdict()}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a zygote becomes.

    Attributes:
        module: what cells run. It has ``warm()``, which may return descriptors for cells to keep, and
            ``serve(listener, prepare)``; where there is a program, ``serve(listener, prepare, program, fork)``. It may
            have ``stand_by()``, for what of ``serve`` can be done before that is called, and ``begin(program)``, which
            runs in the private root before power is given up, and returns whether programs are forked from what it has
            started.
        module_folder: the folder it is imported from.
        program: what ``serve`` is to start; None: the module runs functions itself.
        shown: folders of the host to show in the private root besides the system's, by where they are seen.
        packages: the folder of all unpacked packages.
        root: an empty directory to build the private root on.
        resolvers: the text of ``resolv.conf`` in it.
        means: what the host gives for a sandbox.
        calls: whether system calls are filtered, filtered with an observer that answers those that are denied, or,
            where the kernel cannot, not filtered.
        groups: the lane's cgroup, one directory for each tree; that of a cell is below and has its id for a name.
        lease: seconds to wait for the next lane when one is gone.
        devices: of the host, by their names in ``/dev``, that cells see besides the usual ones, with the modes that
            those have there; only where the zygote is root on the host.
    """

    module: str
    module_folder: str
    program: Program | None
    shown: dict[str, str]
    packages: str
    root: str
    resolvers: str
    means: Means
    calls: Literal["filtered", "observed", "unfiltered"]
    groups: list[str]
    lease: float
    devices: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what ``dataclasses.asdict`` and JSON made of a plan."""
        program = document["program"] and Program(**document["program"])
        return cls(**document | {"means": Means.from_json(document["means"]), "program": program})


class Zygote(Parent):
    """Forks cells on request and reports what becomes of them."""

    def __init__(self, listener: socket.socket, plan: Plan) -> None:
        super().__init__(listener, plan.lease)
        self._plan = plan
        self._module = _import(plan.module, plan.module_folder)
        self._lifeline = Lifeline()
        self._last_capability = privileges.last_capability()
        self._forks = PidNamespaces().fork if plan.means.confined else fork_warm
        self._successor = Successor(self._forks, lambda: self._sandbox.begin(), self._stand_by, self._succeed)
        self._spare = Spare() if plan.means.confined and plan.means.ids is None else None
        self._groups = cgroups.Remains(plan.groups)
        self._sandbox: Sandbox
        self._elsewhere = False
        self._bedrock = _bedrock(plan)
        self._forked = self._laid = 0
        self._cell = ""
        self._latest: tuple[dict[str, Any], int] | None = None
        self._prepare = _Prepare(self._confine, self._can_practise)

    def prepare(self) -> None:
        """Builds the private root and warms the runtime. Raises OSError."""
        policy = Policy.load()  # while its files are to be seen
        libraries.hand_down()
        if self._plan.means.confined:
            syscalls.unshare(syscalls.Clone.MOUNT)
            root.build(
                Path(self._plan.root),
                Path(sys.base_prefix),
                Path(self._plan.packages),
                self._plan.resolvers,
                self._plan.shown,
                self._plan.devices,
            )
            begin = getattr(self._module, "begin", None)
            self._elsewhere = begin is not None and begin(self._plan.program)
            # Cells are born without what is given up here, and only what is executed would have it back.
            privileges.empty_bounding_set(self._last_capability)
        self._sandbox = self._make_sandbox(policy, self._module.warm() or ())
        self._sandbox.close_behind_zygote()
        gc.collect()
        try:
            libraries.settle()
        except OSError:
            traceback.print_exc()  # cells have more mappings then
        if self._bedrock is None:
            gc.freeze()
        else:
            self._bedrock.mark()
            self._lay(self._bedrock)

    def _make_sandbox(self, policy: Policy, kept: Collection[int]) -> Sandbox:
        plan, early, late = self._plan, None, None
        if plan.calls == "observed":
            late = Filter(policy, observed=True)
        elif plan.calls == "filtered":
            # The kernel takes long to check and to compile a filter, and each has memory of its own: most of it is the
            # zygote's, and its cells' from birth.
            early = Filter(policy, decides=lambda call: not is_late(call))
            late = Filter(policy, decides=is_late)
        if plan.means.confined:
            # The kernel looks for a rule up from what is opened, and finds this one sooner than that of the root.
            seen = {os.path.dirname(os.__file__): landlock.READ_SHIELDED}
        else:
            seen = dict.fromkeys(plan.shown, landlock.READ)
        house = House(
            lifeline=self._lifeline,
            confined=plan.means.confined,
            mounts_as_user=_mounts_as_user(plan),
            shown=plan.shown,
            kept=kept,
            rules=allowed(plan.means, seen),
            ruleset=os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),
            filter=early,
            numbers=policy.numbers,
            keeps_doors=self._elsewhere,
        )
        return Sandbox(house, plan.means, self._last_capability, late)

    def _end(self) -> None:
        cells = [*self._pids]
        self._successor.dismiss()
        for pid in self._ids:
            os.kill(pid, signal.SIGKILL)
        self._groups.remove(cells)

    def _serve(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message["op"] == "fork":
            self._fork(message, descriptors, urgent=message["urgent"])
        else:
            self._signal(message["id"], message["signal"])

    def _provision(self) -> Callable[[], None] | None:
        if self._spare is not None and self._spare.wanted:
            return self._spare.make
        if self._bedrock is not None and any(self._laid < learnt <= self._forked for learnt in _LEARNT):
            return partial(self._lay, self._bedrock)
        # Of what starts a program, that is most of the time, and the successor would be one more for each runtime.
        return self._successor.make if self._successor.wanted and self._plan.program is None else None

    def _lay(self, memory: Bedrock) -> None:
        """Makes what it has, with what it has learnt by forking cells, the memory that the next ones go back to."""
        self._laid = self._forked
        self._successor.dismiss()
        gc.freeze()
        try:
            memory.lay(learnt=self._forked >= _LEARNT[-1])
            self._prepare.rest = memory.rest
        except OSError:
            traceback.print_exc()  # they keep what they have copied

    def _fork(self, message: dict[str, Any], descriptors: list[int], *, urgent: bool) -> None:
        network, prepared = message["network"], message["network"] == EGRESS
        if network == NONE and self._spare is not None and (spare := self._spare.take()) is not None:
            descriptors, prepared = [*descriptors[:2], spare, *descriptors[2:]], True
        message["prepared"] = prepared
        try:
            pid = self._successor.appoint(message, descriptors) if urgent else None
            if pid is None:
                self._expect(message, descriptors)
                pid = self._forks(self._be_cell, self._wait_for_cell if urgent else None)
            else:
                self._wait_for_cell()
                # The next successor is to know this kind of cell already.
                self._expect(message, descriptors)
        except OSError as error:
            self._tell("refused", id=message["id"], error=str(error))
        else:
            self._begin(message["id"], pid)
            self._forked += 1
        for descriptor in descriptors:
            os.close(descriptor)

    def _wait_for_cell(self) -> None:
        self._wait(_HEAD_START)

    def _expect(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Fills in whom the next cell is for, here or in that cell."""
        listener, log, *others = descriptors
        namespace = others.pop(0) if message["prepared"] else None
        observer = self._lane.fileno() if self._lane and self._plan.calls == "observed" else None
        self._cell, self._latest = message["id"], (message, len(descriptors))
        self._sandbox.expect(
            Belongings(listener, log, others, message["network"], message["identity"], namespace, observer)
        )

    def _stand_by(self) -> None:
        if self._latest is not None:
            self._rehearse(*self._latest)
        self._prepare.practise()
        stand_by = getattr(self._module, "stand_by", None)
        if stand_by is not None:
            stand_by()

    def _rehearse(self, message: dict[str, Any], descriptors: int) -> None:
        """Goes the way of `_succeed` with what the latest cell was told, and so many descriptors."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            channel.send(ours, message, [ours.fileno()] * descriptors)
            told = channel.receive(theirs)
        assert told is not None
        self._expect(*told)
        self._sandbox.enter(Script.rehearse)
        for descriptor in told[1]:
            os.close(descriptor)

    def _succeed(self, message: dict[str, Any], descriptors: list[int]) -> NoReturn:
        self._expect(message, descriptors)
        self._be_cell()

    def _bury(self, pid: int, code: int) -> None:
        self._successor.ended(pid, code)
        super()._bury(pid, code)

    def _meet(self) -> None:
        self._successor.dismiss()  # it knows the lane before
        super()._meet()

    def _outside(self, pid: int) -> int:
        return pid if self._plan.means.ids is None else namespaces.host_id(pid)

    def _be_cell(self) -> NoReturn:
        code, sandbox = 1, self._sandbox
        try:
            try:
                sandbox.enter()
            except OSError as error:
                self._tell("failed", id=self._cell, error=str(error))
                os._exit(1)
            _signal.set_wakeup_fd(-1)
            _signal.signal(_SIGCHLD, _signal.SIG_DFL)
            listener = socket.socket(_AF_UNIX, _SOCK_STREAM, 0, sandbox.listener)
            if self._plan.program is None:
                self._module.serve(listener, self._prepare)
            else:
                early = Forks(sandbox) if self._starts_early else None
                self._module.serve(listener, self._prepare, self._plan.program, early)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    @property
    def _starts_early(self) -> bool:
        """Whether a program can be confined before there is code: what shows the code then is the private root, and
        whoever observes calls wants those of a function only."""
        return self._plan.means.confined and self._plan.calls != "observed"

    @property
    def _can_practise(self) -> bool:
        """Whether cells can go the way of `_confine` before they have code, which changes nothing then."""
        return _mounts_as_user(self._plan) and self._plan.calls != "observed"

    def _confine(self, request: dict[str, Any], run: Run) -> None:
        heard = self._sandbox.confine(Confinement(**request[CONFINEMENT]), run)
        if heard is not None and self._plan.calls == "observed":
            self._tell("observed", [heard], id=self._cell)
            os.close(heard)
            if self._lane is not None:
                self._lane.close()


class _Prepare:
    """What a module calls with the request that brings the code; it may ``practise`` that while nobody waits.

    Args:
        confine: what is called then.
        can_practise: whether that can be rehearsed.

    Attributes:
        rest: for an instance that waits for its next request for long (`Bedrock.rest`), where that is possible.
    """

    def __init__(self, confine: Callable[[dict[str, Any], Run], None], can_practise: bool) -> None:
        self._confine = confine
        self._can_practise = can_practise
        self.rest: Callable[[int], None] | None = None

    def __call__(self, request: dict[str, Any], run: Run = Script.run) -> None:
        self._confine(request, run)

    def practise(self) -> None:
        if self._can_practise:
            self(_OF_NOBODY, Script.rehearse)


def _mounts_as_user(plan: Plan) -> bool:
    return plan.program is None and plan.means.confined and plan.means.users is Users.OWN


def _bedrock(plan: Plan) -> Bedrock | None:
    """Returns what cells go back to, where they run functions themselves, and see no process of others."""
    if plan.program is not None or not plan.means.confined or not bedrock.possible():
        return None
    try:
        return Bedrock()
    except OSError:
        traceback.print_exc()  # the host allows no code of one's own: cells keep what they have copied
        return None


def _import(module: str, folder: str) -> Any:
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(folder)


def main(listener_descriptor: int, plan: dict[str, Any]) -> None:
    """Runs a zygote on the listening end of a channel until no lane needs it any more."""
    os.umask(0o022)  # what the zygote makes must be open to users that it does not know yet
    listener, what = socket.socket(fileno=listener_descriptor), Plan.from_json(plan)

    def make() -> Zygote:
        if what.means.ids is not None:
            users.enter(what.means.ids)
            namespaces.become_first(listener_descriptor)
        zygote = Zygote(listener, what)
        zygote.prepare()
        return zygote

    serve(listener, what.lease, make)
