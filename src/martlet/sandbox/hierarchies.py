"""Where groups are on this host: the trees that are mounted, and the place of a process or a group in each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from martlet.sandbox.cgroups import CONTROLLERS, REST, Group, GroupV1, GroupV2

_UNIFIED = ""
"""What ``/proc/self/cgroup`` calls the v2 tree, where others name controllers."""


def find_top(mounts: str) -> Group | None:
    """Returns the group at the top of this host's hierarchy, or None where controllers are missing.

    Args:
        mounts: the text of ``/proc/self/mountinfo``.
    """
    return _group({name: place for name, (_, place) in _hierarchies(mounts).items()})


def find_everywhere(mounts: str) -> Group:
    """Returns the group at the top of every tree there is, also of those whose limits Martlet does not use.

    Container engines make groups in all of them.

    Args:
        mounts: the text of ``/proc/self/mountinfo``.
    """
    return GroupV1({name: place for name, (_, place) in _hierarchies(mounts).items()})


def find_others(directories: Iterable[str], mounts: str) -> Group:
    """Like `find_everywhere`, but for the trees in which these directories are."""
    return GroupV1(
        {
            name: place
            for name, (_, place) in _hierarchies(mounts).items()
            if not any(Path(each).is_relative_to(place) for each in directories)
        }
    )


def name_in_trees(directories: Sequence[str], mounts: str) -> str:
    """Returns the name by which a group is found from the top of every tree.

    Args:
        directories: where it is.
        mounts: the text of ``/proc/self/mountinfo``.

    Raises:
        OSError: it is not the same in all of them.
    """
    tops = [place for _, place in _hierarchies(mounts).values()]
    names = {
        Path(each).relative_to(top) for each in directories for top in tops if Path(each).is_relative_to(top)
    }
    if len(names) != 1:
        raise OSError(f"the cgroup is not at the same place in every tree: {' '.join(directories)}")
    return str(names.pop())


def find_own(mounts: str, memberships: str) -> Group | None:
    """Returns the group that this process is in, or None where controllers are missing.

    Args:
        mounts: the text of ``/proc/self/mountinfo``.
        memberships: the text of ``/proc/self/cgroup``.
    """
    hierarchies = _hierarchies(mounts)
    directories: dict[str, Path] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            if name in hierarchies:
                top, place = hierarchies[name]
                inside = Path(path)
                if name == _UNIFIED and inside.name == REST:
                    # This process was moved aside when its group handed on controllers.
                    inside = inside.parent
                if inside.is_relative_to(top):
                    directories[name] = place / inside.relative_to(top)
    return _group(directories)


def usable_group() -> Group | None:
    """Returns the group that this process may make its own in, or None where there is none."""
    return next((group for group in candidates(*_own_places()) if group.writable()), None)


def unusable_groups() -> list[Group]:
    """Returns those that it looks for, and may not."""
    return [group for group in candidates(*_own_places()) if not group.writable()]


def _own_places() -> tuple[str, str]:
    return Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()


def candidates(mounts: str, memberships: str) -> list[Group]:
    """Returns the groups that a platform might make its own in, the best first: `find_top`, `find_own`."""
    found = (find_top(mounts), find_own(mounts, memberships))
    return list({str(group): group for group in found if group is not None}.values())


def _hierarchies(mounts: str) -> dict[str, tuple[str, Path]]:
    """Returns for each controller, and for the v2 tree, which group is to be seen where."""
    found: dict[str, tuple[str, Path]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        (top, place), (kind, _, options) = before.split()[3:5], after.split(maxsplit=2)
        if kind == "cgroup":
            found |= dict.fromkeys(options.split(","), (top, Path(place)))
        elif kind == "cgroup2":
            found[_UNIFIED] = (top, Path(place))
    return found


def _group(directories: dict[str, Path]) -> Group | None:
    unified = directories.get(_UNIFIED)
    if unified is not None:
        available = (unified / "cgroup.controllers").read_text().split()
        if set(CONTROLLERS) <= set(available):
            return GroupV2(dict.fromkeys(CONTROLLERS, unified))
    wanted = (*CONTROLLERS, "cpuacct")
    return GroupV1({name: directories[name] for name in wanted}) if set(wanted) <= set(directories) else None
