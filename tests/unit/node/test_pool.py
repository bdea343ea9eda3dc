"""Calls that wait for an instance are answered, whatever comes in between."""

from types import SimpleNamespace

import pytest

from martlet.errors import MartletError, NoCapacity
from martlet.model import FunctionConfig, Revision
from martlet.node.habit import Habit
from martlet.node.pool import Pool

pytestmark = pytest.mark.anyio

REVISION = Revision(function="hello", number=1, config=FunctionConfig(), code="0" * 64, created=0.0)


class WaitingCall:
    """As much of a call as waits."""

    def __init__(self):
        self.failure = None
        self.exchange = SimpleNamespace(gone=False, context=self)

    def fail(self, error):
        self.failure = error


def pool_that_cannot_start(error):
    async def launch(_pool):
        raise error

    recorded = []
    habit = Habit()
    node = SimpleNamespace(
        launch=launch,
        allowance=SimpleNamespace(changed=lambda: None),
        pass_on=lambda _call, _error: False,
        recorder=SimpleNamespace(of=lambda _revision: lambda *record: recorded.append(record)),
        habits=SimpleNamespace(of=lambda _function: habit),
    )
    return Pool(node, REVISION, lambda call: None), recorded


@pytest.mark.parametrize(
    ("error", "code"),
    [(NoCapacity("full"), "no_capacity"), (RuntimeError("a fault of ours"), MartletError.code)],
)
async def test_a_start_that_fails_answers_all_who_wait(error, code):
    pool, recorded = pool_that_cannot_start(error)
    calls = [WaitingCall(), WaitingCall()]
    pool.waiting.extend(calls)
    pool.starting = 1
    await pool.start_granted()
    assert [call.failure.code for call in calls] == [code] * 2
    assert (pool.starting, len(pool.waiting), len(recorded)) == (0, 0, 2)
