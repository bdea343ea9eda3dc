"""What this host has of what the process rung needs, found by trying it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import martlet
from martlet.drivers import guarantees, subordinate
from martlet.drivers.driver import Guarantee
from martlet.drivers.identities import PER_LANE, first_of
from martlet.drivers.subordinate import NotLent
from martlet.sandbox import rehearsal
from martlet.sandbox.cgroups import Group
from martlet.sandbox.hierarchies import unusable_groups, usable_group
from martlet.sandbox.means import Means, Users
from martlet.sandbox.users import Extent, IdMap

_REHEARSE = """
import sys
sys.path.insert(0, sys.argv[1])
from martlet.sandbox import rehearsal
rehearsal.main(sys.argv[2])
"""
_NOTHING = Means(confined=False, users=Users.SHARED)
"""What every host gives: no means at all."""


@dataclass(frozen=True, slots=True)
class Host:
    """What there is.

    Attributes:
        means: what sandboxes are made of.
        filtered: whether system calls can be filtered.
        identities: how many user ids there are for those of a lane.
        group: the cgroup to make groups in, or None where there is none.
        guarantees: what follows for functions.
    """

    means: Means
    filtered: bool
    identities: int
    group: Group | None
    guarantees: list[Guarantee]


def inspect(interpreter: Path, lane: int) -> Host:
    """Returns what this host has for sandboxes of a lane; takes some 50 ms, because it tries instead of guessing."""
    choices, not_lent = _choices(lane)
    try:
        refusals = _rehearse(interpreter, choices, first_of(lane))
    except OSError as error:
        means, filtered, sandbox = _NOTHING, False, guarantees.without_interpreter(error)
    else:
        *failed, last = refusals
        means, filtered = choices[len(failed)], rehearsal.CALLS not in last
        # What the best that was tried in vain is refused says why this is not better.
        better = [words for each, words in zip(choices, failed, strict=False) if each.confined]
        sandbox = guarantees.of_sandbox(means, (better[-1] if better else {}) | last, not_lent)
    group = usable_group()
    limits = guarantees.of_cgroups(group, unusable_groups())
    lent = means.ids is not None and means.ids.subordinate
    identities = subordinate.PER_LANE - 1 if lent else PER_LANE // 2
    return Host(means, filtered, identities, group, [*sandbox, limits])


def _choices(lane: int) -> tuple[list[Means], NotLent | None]:
    """Returns what sandboxes might be made of, the best first, and why no ids are lent where that matters."""
    first = first_of(lane)
    single = Means(confined=True, users=Users.NESTED, ids=IdMap.single())
    if os.geteuid() == 0:
        own = Extent(first, first, PER_LANE)
        ids = IdMap((Extent(0, 0, 1), own), (Extent(0, 0, 1), own))
        return [
            Means(confined=True, users=Users.OWN),
            Means(confined=True, users=Users.OWN, ids=ids),
            single,
            Means(confined=False, users=Users.OWN),
            _NOTHING,
        ], None
    try:
        lent = Means(confined=True, users=Users.OWN, ids=subordinate.lent_to(lane, first))
    except NotLent as error:
        return [single, _NOTHING], error
    return [lent, single, _NOTHING], None


def _rehearse(interpreter: Path, choices: list[Means], identity: int) -> list[dict[str, str]]:
    folder = Path(martlet.__file__).parent.parent
    pairs = json.dumps([(asdict(means), identity) for means in choices])
    tried = subprocess.run(
        [interpreter, "-I", "-S", "-c", _REHEARSE, folder, pairs], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        last_line = tried.stderr.strip().rpartition("\n")[2]
        raise OSError(last_line or f"it ended with {tried.returncode}")
    refusals: list[dict[str, str]] = json.loads(tried.stdout)
    return refusals
