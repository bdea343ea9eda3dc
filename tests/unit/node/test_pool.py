"""Calls that wait for an instance are answered, whatever comes in between."""

from types import SimpleNamespace

import pytest

from martlet.drivers.driver import LoadFailed
from martlet.errors import MartletError, NoCapacity, Overloaded
from martlet.model import FunctionConfig, Revision
from martlet.node import remarks
from martlet.node.habit import Habit
from martlet.node.pool import Pool

pytestmark = pytest.mark.anyio

REVISION = Revision(function="hello", number=1, config=FunctionConfig(), code="0" * 64, created=0.0)


class WaitingCall:
    """As much of a call as waits."""

    def __init__(self):
        self.failure = None
        self.exchange = SimpleNamespace(gone=False, context=self, request_id="r1")

    def fail(self, error):
        self.failure = error


def pool_that_cannot_start(error):
    async def launch(_pool):
        raise error

    recorded, lines = [], []
    habit = Habit()
    node = SimpleNamespace(
        launch=launch,
        allowance=SimpleNamespace(changed=lambda: None),
        room=SimpleNamespace(taken=0),
        pass_on=lambda _call, _error: False,
        recorder=SimpleNamespace(of=lambda _revision: lambda *record: recorded.append(record)),
        habits=SimpleNamespace(of=lambda _function: habit),
        logs=SimpleNamespace(append=lines.append),
    )
    return Pool(node, REVISION, lambda call: None), recorded, lines


@pytest.mark.parametrize(
    ("error", "code"),
    [(NoCapacity("full"), "no_capacity"), (RuntimeError("a fault of ours"), MartletError.code)],
)
async def test_a_start_that_fails_answers_all_who_wait(error, code):
    pool, recorded, lines = pool_that_cannot_start(error)
    calls = [WaitingCall(), WaitingCall()]
    pool.waiting.extend(calls)
    pool.starting = 1
    await pool.start_granted()
    assert [call.failure.code for call in calls] == [code] * 2
    assert (pool.starting, len(pool.waiting), len(recorded)) == (0, 0, 2)
    (line,) = lines
    assert (line["source"], line["request_id"]) == ("platform", None)
    assert calls[0].failure.detail in line["message"]


async def test_starts_that_fail_one_after_the_other_are_told_once_with_how_many_they_were(monkeypatch):
    pool, _, lines = pool_that_cannot_start(LoadFailed("Gone", "no such module"))
    now = 0.0
    monkeypatch.setattr(remarks, "monotonic", lambda: now)
    for now in (1.0, 1.1, 1.2, 1.3 + remarks.QUIET):  # noqa: B007  (the clock is read in between)
        pool.waiting.append(WaitingCall())
        pool.starting = 1
        await pool.start_granted()
    first, last = (line["message"] for line in lines)
    assert first == "an instance did not start: Gone: no such module"
    assert last.startswith(first)
    assert " 2 starts" in last
    assert {line["request_id"] for line in lines} == {"r1"}


async def test_what_another_machine_takes_over_is_no_failure():
    pool, recorded, lines = pool_that_cannot_start(NoCapacity("full"))
    pool.node.pass_on = lambda _call, _error: True
    pool.waiting.append(WaitingCall())
    pool.starting = 1
    await pool.start_granted()
    assert (recorded, lines) == ([], [])


def test_the_clock_is_told_of_the_first_that_waits_each_time():
    pool, *_ = pool_that_cannot_start(NoCapacity("full"))
    pressed = []
    pool.node.clock = SimpleNamespace(press=pressed.append)
    pool.starting = 1
    for time in (1, 2):
        pool.submit(WaitingCall())
        pool.submit(WaitingCall())
        assert (pressed, len(pool.waiting)) == ([pool] * time, 2)
        pool.waiting.clear()


def test_one_call_waits_for_a_first_instance_where_none_may_wait_for_a_slot():
    pool, *_ = pool_that_cannot_start(NoCapacity("full"))
    pool.node.clock = SimpleNamespace(press=lambda pool: None)
    pool.config = FunctionConfig(max_queue=0)
    pool.starting = 1
    pool.submit(WaitingCall())
    with pytest.raises(Overloaded):
        pool.submit(WaitingCall())
    pool.waiting.clear()
    pool.instances.add(object())
    with pytest.raises(Overloaded):
        pool.submit(WaitingCall())
