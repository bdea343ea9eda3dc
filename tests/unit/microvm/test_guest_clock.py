"""The clock of a guest, which is told the time, and hears it late."""

import time

import pytest

from martlet.microvm import agent


def test_a_guest_goes_by_the_latest_time_that_it_was_told(monkeypatch: pytest.MonkeyPatch):
    clock = [1000]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    monkeypatch.setattr(time, "clock_settime_ns", lambda _clock, now: clock.__setitem__(0, now))

    seen = []
    for told in (3000, 2000, 4000):
        agent._catch_up(told)
        seen.append(clock[0])

    assert seen == [3000, 3000, 4000]
