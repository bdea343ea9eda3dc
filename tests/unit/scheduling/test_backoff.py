"""How often a function is started whose instances die."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.backoff import FIRST, FREE, LONGEST, Backoff


def dead(times, now=0.0):
    backoff = Backoff()
    for _ in range(times):
        backoff.died(now)
    return backoff


@pytest.mark.parametrize("deaths", range(FREE + 1))
def test_a_few_deaths_cost_nothing(deaths):
    assert dead(deaths).grant(5, 0.0) == 5


def test_after_more_the_pauses_double_up_to_the_longest():
    backoff, now, pauses = dead(FREE), 0.0, []
    for _ in range(8):
        backoff.died(now)
        pauses.append(backoff.pause)
        assert backoff.grant(1, now + 0.99 * backoff.pause) == 0
        now += backoff.pause
        assert backoff.grant(1, now) == 1
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pauses[-1] == LONGEST
    assert pauses == sorted(pauses)


def test_of_many_that_are_wanted_one_starts_after_each_pause():
    backoff = dead(FREE + 1)
    assert backoff.grant(5, FIRST) == 1
    assert backoff.grant(5, FIRST) == 0
    assert backoff.grant(5, 2 * FIRST) == 1


def test_to_want_none_puts_nothing_off():
    backoff = dead(FREE + 1)
    assert backoff.grant(0, FIRST) == 0
    assert backoff.grant(1, FIRST) == 1


def test_an_answer_ends_it():
    backoff = dead(100)
    backoff.answered()
    assert (backoff.pause, backoff.grant(5, 0.0)) == (0.0, 5)


@given(st.lists(st.floats(0.0, 0.5), min_size=50, max_size=200))
def test_who_dies_at_once_is_not_started_more_often_than_the_longest_pause_allows(steps):
    backoff, now, started = dead(100), 0.0, 0
    for step in steps:
        now += step
        for _ in range(backoff.grant(3, now)):
            started += 1
            backoff.died(now)
    assert started <= now / LONGEST
