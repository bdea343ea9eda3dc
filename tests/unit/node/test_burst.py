"""Who computes for long gives way, and has its share back when it is done."""

from dataclasses import dataclass, field

import pytest

from martlet.drivers.driver import Handle
from martlet.node.burst import FIRST_PAUSE, LONGEST_PAUSE, Burst

HANDLE = Handle(id="0-a", driver="scales", runtime="python3.11", socket="sock", log="log", pid=1)


@dataclass
class Scales:
    """A driver of one instance, which uses what it is told to."""

    used: float | None = 0.0
    asked: int = 0
    changes: list[bool] = field(default_factory=list)

    def cpu_ms(self, handle: Handle) -> float | None:
        self.asked += 1
        return self.used

    def give_way(self, handle: Handle, gives: bool) -> None:
        self.changes.append(gives)


def run(burst: Burst, scales: Scales, seconds: float, share: float, start: float = 100.0) -> float:
    """Looks every hundredth of a second while ``share`` of the time is computed. Returns when that ends."""
    for step in range(round(seconds * 100)):
        burst.look(start + step / 100)
        if scales.used is not None:
            scales.used += share * 10
    return start + seconds


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_who_computes_gives_way_from_the_second_look_on(share):
    scales = Scales()
    burst = Burst(scales, HANDLE)

    run(burst, scales, 0.015, share)
    assert scales.changes == [True]

    run(burst, scales, 3, share)
    assert scales.changes == [True]


def test_who_waits_for_others_keeps_its_share():
    scales = Scales()

    run(Burst(scales, HANDLE), scales, 3, 0.02)

    assert scales.changes == []


def test_who_is_done_has_its_share_back_at_once():
    scales = Scales()
    burst = Burst(scales, HANDLE)
    run(burst, scales, 1, 1.0)

    burst.over()

    assert scales.changes == [True, False]
    assert not burst.seen


def test_who_waits_again_while_it_is_called_has_its_share_back():
    scales = Scales()
    burst = Burst(scales, HANDLE)
    later = run(burst, scales, 1, 1.0)

    run(burst, scales, 2 * LONGEST_PAUSE + FIRST_PAUSE, 0.0, later)

    assert scales.changes == [True, False]


def test_who_gets_less_than_it_wants_because_it_gives_way_goes_on_giving_way():
    scales = Scales()
    burst = Burst(scales, HANDLE)
    later = run(burst, scales, 1, 1.0)

    run(burst, scales, 5, 0.01, later)

    assert scales.changes == [True]


def test_it_is_looked_at_ever_less_often():
    scales = Scales()

    run(Burst(scales, HANDLE), scales, 10, 1.0)

    assert scales.asked < 20


def test_an_instance_that_is_gone_is_left_alone():
    scales = Scales(used=None)
    burst = Burst(scales, HANDLE)

    run(burst, scales, 1, 1.0)

    assert scales.changes == []
