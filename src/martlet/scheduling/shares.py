"""How ``max_instances`` of a revision is divided over nodes: each starts instances within its share, and asks nobody.

Of a revision that is in use the store has a *record* of the shares, which the leader writes anew as demand moves
(`redivided`). It never adds up to more than ``max_instances``, and what one node is to give up is given to another only
when the first has said that it has seen so and holds no more. What the record does not say, every node computes alike
(`shares_of`): who inherits from nodes that are gone, and all of a revision that has no record yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from martlet.scheduling.placement import HOMES, Candidate, Need, homes_first, ranking, share_of

Shares = Mapping[str, int]
"""Instances that each node may have, by its name; a node that is not in it may have none."""


def dealt(need: Need, count: int, nodes: Iterable[Candidate]) -> dict[str, int]:
    """Deals instances of a revision out over its homes: nodes that hold some, and the first others that have room."""
    ordered = homes_first(need, nodes)
    holding = [node.name for node in ordered if node.held]
    fitting = [node.name for node in ordered if not node.held and node.fits(need)]
    chosen = {*holding, *fitting[: max(0, HOMES - len(holding))]}
    homes = [node.name for node in ordered if node.name in chosen] or [node.name for node in ordered[:HOMES]]
    return {home: share for home in homes if (share := share_of(home, homes, count))}


def shares_of(need: Need, most: int, nodes: Iterable[Candidate], record: Shares | None) -> dict[str, int]:
    """Returns what each node may have, as all who see the same nodes and the same record know it.

    Args:
        need: what an instance takes.
        most: ``max_instances``.
        nodes: those that are alive.
        record: what the store says; None: nothing.
    """
    living = {node.name: node for node in nodes}
    if record is None:
        return _left_where_they_are(dealt(need, most, living.values()), living)
    heirs = ranking(need.revision, record.keys() & living.keys())
    if not heirs:
        return dealt(need, most, living.values())
    lost = sum(share for name, share in record.items() if name not in living)
    return {name: record[name] + share_of(name, heirs, lost) for name in heirs}


def _left_where_they_are(shares: dict[str, int], nodes: Mapping[str, Candidate]) -> dict[str, int]:
    """Lets who has more than its share keep it, from the shares of those that have less."""
    lacking = [name for name, node in nodes.items() if shares and node.held > shares.get(name, 0)]
    for name in lacking:
        for _ in range(nodes[name].held - shares.get(name, 0)):
            donor = max(shares, key=lambda other: shares[other] - nodes[other].held)
            if shares[donor] <= nodes[donor].held:
                return shares
            shares[donor] -= 1
            shares[name] = shares.get(name, 0) + 1
    return {name: share for name, share in shares.items() if share}


@dataclass(frozen=True, slots=True)
class Report:
    """What a node said last of a revision: instances.

    Attributes:
        held: that it has, or starts.
        wanted: that the requests take which it runs, and which wait there.
        room: that it could start besides.
        least: that it has to keep of ``min_instances``.
        lent: that the requests take which it runs for others, which would run them themselves.
    """

    held: int = 0
    wanted: int = 0
    room: int = 0
    least: int = 0
    lent: int = 0


def brought_home(
    calls: Mapping[str, float], forwarded: Mapping[str, Mapping[str, float]], able: Mapping[str, int]
) -> dict[str, float]:
    """Returns the calls at each node as they would be if each ran those that come to it, as far as it can.

    Where they run now is where there are instances. So a node that may have none would never be seen to need one.

    Args:
        calls: that run or wait at each node.
        forwarded: what of them other nodes have sent there, by these.
        able: how many calls at once each of the others has room for.
    """
    home = dict(calls)
    for name, senders in forwarded.items():
        for sender, sent in senders.items():
            moved = max(0.0, min(sent, home.get(name, 0.0), able.get(sender, 0) - home.get(sender, 0.0)))
            if moved:
                home[name] = round(home[name] - moved, 1)
                home[sender] = round(home.get(sender, 0.0) + moved, 1)
    return home


def redivided(most: int, shares: Shares, reports: Mapping[str, Report]) -> dict[str, int]:
    """Returns the shares to write next. They are the same while every node has what it wants, and every home some.

    They are never empty, which would be as if nothing had been divided yet.

    Args:
        most: ``max_instances``.
        shares: those that all nodes go by now.
        reports: of all nodes that are alive, the homes of the revision first.
    """
    return _step(most, shares, reports, _goal(most, shares, reports))


def _goal(most: int, shares: Shares, reports: Mapping[str, Report]) -> dict[str, int]:
    """Returns the shares that are to be, in the end: what nobody wants stays where it is, unless another wants it."""
    due = _fair(most, reports)
    goal = {
        name: max(due[name], min(shares.get(name, 0), report.held + report.room))
        for name, report in reports.items()
    }
    excess = sum(goal.values()) - most
    while excess > 0:
        donor = max(goal, key=lambda name: goal[name] - due[name])
        taken = min(excess, -(-(goal[donor] - due[donor]) // 2))
        goal[donor] -= taken
        excess -= taken
    spare = -excess
    while spare > 0:
        homes = [name for name, report in reports.items() if goal[name] < report.held + report.room][:HOMES]
        if not homes:
            break
        for name in homes[:spare]:
            goal[name] += 1
            spare -= 1
    return goal


def _fair(most: int, reports: Mapping[str, Report]) -> dict[str, int]:
    """Returns what each node is due: what it must keep, then what it wants, in equal parts where that is too much.

    Of what is left each home is due one, so that the others go on at once where one is lost.
    """
    due = {name: min(report.least, most) for name, report in reports.items()}
    spare = most - sum(due.values())
    while spare > 0:
        wanting = [
            name
            for name, report in reports.items()
            if due[name] < min(report.wanted, report.held + report.room)
        ]
        if not wanting:
            break
        for name in wanting[:spare]:
            due[name] += 1
            spare -= 1
    idle = [name for name, report in reports.items() if not due[name] and report.held + report.room]
    homes = sum(share > 0 for share in due.values())
    for name in idle[: max(0, min(spare, HOMES - homes))]:
        due[name] = 1
    return due


def _step(most: int, shares: Shares, reports: Mapping[str, Report], goal: Shares) -> dict[str, int]:
    """Goes towards the goal as far as no node can be at its old share while another is at its new one.

    Half of what runs calls of others stays until these run them, and one instance until another node may have one:
    while a share is on its way nobody has it.
    """
    bound = {name: max(shares.get(name, 0), report.held) for name, report in reports.items()}
    spare = max(0, most - sum(bound.values()))
    step = {}
    for name, wanted in goal.items():
        stays = min(bound[name], reports[name].lent) // 2
        step[name] = min(max(wanted, stays), bound[name] + spare)
        spare -= max(0, step[name] - bound[name])
    if not any(goal.values()):  # nobody has room: they are the same as soon as somebody has
        return dict(shares)
    if not any(step.values()):
        able = {name: min(bound[name], report.held + report.room) for name, report in reports.items()}
        last = max(bound, key=lambda name: (able[name], bound[name]))
        return {last: min(able[last], 1)}
    return {name: share for name, share in step.items() if share}
