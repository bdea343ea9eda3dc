"""Why a function has as many instances on this lane as it has."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from martlet.model import FunctionConfig, KeepAliveView, NodeScaling, ScalingDecision
from martlet.node.habit import Habit, windows_of
from martlet.scheduling.keepalive import FEWEST, Basis, Windows

if TYPE_CHECKING:
    from martlet.node.node import Node


def explain(node: Node, function: str, config: FunctionConfig) -> NodeScaling:
    """Returns what the lane knows; ``config`` is that of the revision that serves."""
    habit = node.habits.of(function)
    pools = [pool for pool in node.pools.values() if pool.revision.function == function]
    instances = [instance for pool in pools for instance in pool.instances]
    busy = sum(1 for instance in instances if instance.calls)
    idle = None if habit.used is None else monotonic() - habit.used
    windows = windows_of(node.settings, config, habit)
    learned = habit.windows(node.settings.warm_instance_ttl)
    return NodeScaling(
        node=node.name,
        instances=len(instances),
        busy=busy,
        starting=sum(pool.starting for pool in pools),
        waiting=sum(len(pool.waiting) for pool in pools),
        last_used=None if idle is None else time() - idle,
        why=f"{_now(len(instances), busy, idle)}; {_kept(windows, habit, config)}",
        keep_alive=_view(windows),
        learned=_view(learned),
        idle_times=habit.idle_times.known,
        decisions=[
            ScalingDecision(
                time=each.time,
                node=node.name,
                revision=each.revision,
                action=each.action,
                instances=each.instances,
                times=each.times,
                reason=each.reason,
            )
            for each in reversed(habit.decisions)
        ],
    )


def _view(windows: Windows) -> KeepAliveView:
    return KeepAliveView(basis=windows.basis, linger=windows.linger, begin=windows.begin, end=windows.end)


def _now(instances: int, busy: int, idle: float | None) -> str:
    if busy:
        return f"{busy} of {instances} run requests"
    if idle is None:
        return "it has not been called here"
    return f"it was last called {_span(idle)} ago"


def _kept(windows: Windows, habit: Habit, config: FunctionConfig) -> str:
    least = f", but for min_instances ({config.min_instances})" if config.min_instances else ""
    kept = f"idle instances are kept for {_span(windows.linger)}{least}"
    match windows.basis:
        case Basis.TTL:
            return f"{kept} ({'warm_instance_ttl' if config.idle_ttl is None else 'idle_ttl'})"
        case Basis.FEW:
            return f"{kept}, for fewer than {FEWEST} idle times are known of it ({habit.idle_times.known})"
        case Basis.SPREAD:
            return f"{kept}, for its idle times are too spread to tell the next"
        case Basis.IRREGULAR:
            return f"{kept}, for its idle times are long and not alike"
    due = f"a call is due from {_span(windows.begin)} to {_span(windows.end)} after the last"
    if not windows.prewarms:
        return (
            f"a call is due within {_span(windows.end)} of the last, and instances are kept until then{least}"
        )
    away = f"{habit.put_away} instance{'s' * (habit.put_away != 1)} will be back by then"
    return f"{due}; until then instances go{least}{f', and {away}' if habit.put_away else ''}"


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
