"""How functions are used on this lane: when they are idle, for how long, and what was decided about their instances.

What is learned outlives the lane in one file, `habits-N.json` of the data folder: some 500 bytes for each function that
there is. It is written once a minute while something changes, and when the lane ends; `kill -9` costs that minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any, Self

import orjson
import structlog

from martlet.model import FunctionConfig, ScalingAction
from martlet.scheduling.keepalive import IdleTimes, Windows, fixed
from martlet.settings import SystemSettings

log = structlog.get_logger()

DECISIONS_KEPT = 20
"""Of each function; the same decision several times in a row counts as one."""


@dataclass(slots=True)
class Decision:
    """Something that was decided about the instances of a revision.

    Attributes:
        time: seconds since the epoch, of the last time.
        times: how often in a row.
        instances: how many instances were concerned, of all times together.
        reason: a sentence.
    """

    time: float
    revision: int
    action: ScalingAction
    reason: str
    instances: int
    times: int = 1


class Habit:
    """How one function is used here.

    Attributes:
        idle_times: how long it was idle.
        used: when it was last seen in use: `monotonic`. None where it never was.
        put_away: instances that were ended because no call was due, and that are to be back when one is.
        decisions: the last ones, the latest last.
    """

    def __init__(self) -> None:
        self.idle_times = IdleTimes()
        self.used: float | None = None
        self.put_away = 0
        self.decisions: deque[Decision] = deque(maxlen=DECISIONS_KEPT)
        self._windows: Windows | None = None

    def seen(self, at: float) -> None:
        """It was in use then."""
        if self.used is None:
            self.used = at
        elif at > self.used:
            self.idle_times.observe(at - self.used)
            self._windows = None
            self.used = at
            self.put_away = 0

    def windows(self, ttl: float) -> Windows:
        """Returns when it should have instances; ``ttl`` (always the same) is how long where it cannot be told."""
        if self._windows is None:
            self._windows = self.idle_times.windows(ttl)
        return self._windows

    def note(self, revision: int, action: ScalingAction, reason: str, instances: int = 1) -> None:
        """Remembers a decision."""
        last = self.decisions[-1] if self.decisions else None
        if last is not None and (last.revision, last.action, last.reason) == (revision, action, reason):
            last.time = time()
            last.times += 1
            last.instances += instances
        else:
            self.decisions.append(Decision(time(), revision, action, reason, instances))

    def to_json(self) -> dict[str, Any]:
        """Returns what outlives the lane as a JSON-ready dict."""
        used = None if self.used is None else round(time() - (monotonic() - self.used), 1)
        return {"idle_times": self.idle_times.to_json(), "used": used, "put_away": self.put_away}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Reads what `to_json` returned. Raises ValueError, TypeError or KeyError where it is something else."""
        habit = cls()
        habit.idle_times = IdleTimes.from_json(document["idle_times"])
        if document["used"] is not None:
            habit.used = monotonic() - max(0.0, time() - float(document["used"]))
        habit.put_away = int(document["put_away"])
        return habit


def windows_of(settings: SystemSettings, config: FunctionConfig, habit: Habit) -> Windows:
    """Returns when a function should have instances: its own `idle_ttl` goes before what `keep_alive` says."""
    if config.idle_ttl is not None:
        return fixed(config.idle_ttl)
    if settings.keep_alive == "learned":
        return habit.windows(settings.warm_instance_ttl)
    return fixed(settings.warm_instance_ttl)


class Habits:
    """Those of all functions that this lane has seen.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._habits: dict[str, Habit] = {}
        self._written = b""

    def __iter__(self) -> Iterator[tuple[str, Habit]]:
        return iter(tuple(self._habits.items()))

    def of(self, function: str) -> Habit:
        """Returns that of a function, made where there is none."""
        habit = self._habits.get(function)
        if habit is None:
            habit = self._habits[function] = Habit()
        return habit

    def forget(self, function: str) -> None:
        """Drops what is known of a function."""
        self._habits.pop(function, None)

    def load(self, known: Container[str]) -> None:
        """Reads what an earlier life of the lane has learned of the functions that there still are.

        A file that cannot be read costs what was learned, and is written anew.
        """
        try:
            document = orjson.loads(self._path.read_bytes())
            self._habits = {name: Habit.from_json(each) for name, each in document.items() if name in known}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("habits_not_read", file=str(self._path), error=str(error))

    def save(self) -> None:
        """Writes the file, all of it or nothing, where something has changed."""
        document = orjson.dumps({name: habit.to_json() for name, habit in self._habits.items()})
        if document == self._written:
            return
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(document)
            new.replace(self._path)
        except OSError as error:
            log.warning("habits_not_written", file=str(self._path), error=str(error))
        else:
            self._written = document
