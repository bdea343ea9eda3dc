"""When a function has instances that nobody calls."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.keepalive import (
    BIN,
    BINS,
    FEWEST,
    LINGER,
    MEMORY_RESERVE,
    MOST_COUNTED,
    Basis,
    IdleTimes,
    fixed,
    instances_to_prewarm,
)

TTL = 600.0
REACH = BIN * BINS

idle_times = st.lists(st.floats(0, 4 * REACH), max_size=300)


def after(*idle):
    history = IdleTimes()
    for each in idle:
        history.observe(each)
    return history


def test_a_fixed_time_is_one_window_from_the_last_call_on():
    windows = fixed(TTL)
    assert windows.want(0)
    assert windows.want(TTL - 1)
    assert not windows.want(TTL)
    assert (windows.loaded(10), windows.loaded(2 * TTL)) == (10, TTL)
    assert not fixed(0).want(0)


def test_a_function_that_is_not_known_well_is_kept_for_the_fixed_time():
    assert after().windows(TTL) == fixed(TTL, Basis.FEW)
    assert after(*[300] * (FEWEST - 1)).windows(TTL) == fixed(TTL, Basis.FEW)


def test_a_function_that_is_called_each_half_hour_goes_at_once_and_is_back_in_time():
    windows = after(*[1800] * FEWEST).windows(TTL)
    assert windows.basis is Basis.HISTOGRAM
    assert LINGER < windows.begin < 1800 < windows.end < REACH
    assert windows.want(LINGER / 2)
    assert not windows.want(900)
    assert windows.want(1800)
    assert not windows.want(windows.end)
    assert windows.loaded(1800) == LINGER + 1800 - windows.begin


def test_a_function_that_is_called_each_two_minutes_is_not_kept_for_ten():
    windows = after(*[125] * 50).windows(TTL)
    assert windows.want(125)
    assert windows.end < 5 * 60


def test_a_burst_does_not_hide_the_time_between_bursts():
    burst = [0.5] * 1000
    assert after(*[*burst, 1800] * FEWEST).windows(TTL) == after(*[1800] * FEWEST).windows(TTL)


def test_a_rare_straggler_does_not_hold_the_window_open_and_a_frequent_one_does():
    rare = after(*[125] * 200, 2400).windows(TTL)
    assert not rare.want(2400)
    frequent = after(*[125] * 20, *[2400] * 2).windows(TTL)
    assert frequent.want(2400)


def test_idle_times_of_any_length_say_nothing():
    anything = [minute * BIN for minute in range(1, BINS)]
    assert after(*anything).windows(TTL) == fixed(TTL, Basis.SPREAD)


def test_beyond_the_histogram_the_next_is_like_the_last_few_if_these_are_alike():
    hourly = after(*[3600, 3650, 3550, 3620, 3580]).windows(TTL)
    assert hourly.basis is Basis.FAR
    assert not hourly.want(1800)
    assert hourly.want(3600)
    assert not hourly.want(5000)
    assert after(3600, 3600, 9000, 20_000, 4000).windows(TTL) == fixed(TTL, Basis.IRREGULAR)


def test_what_is_new_outweighs_what_is_long_ago():
    history = after(*[1800] * MOST_COUNTED, *[300] * 10 * MOST_COUNTED)
    assert not history.windows(TTL).want(1800)
    assert history.windows(TTL).want(300)


@given(idle_times)
def test_what_is_remembered_is_little_and_survives_json(idle):
    history = after(*idle)
    text = json.dumps(history.to_json())
    assert len(text) < 400
    again = IdleTimes.from_json(json.loads(text))
    assert again.to_json() == history.to_json()
    assert again.known == history.known


def test_a_year_of_calls_takes_no_more():
    history = after(*[61.0 + 60 * (n % (BINS + 1)) for n in range(100 * MOST_COUNTED)])
    assert history.known < MOST_COUNTED
    assert len(json.dumps(history.to_json())) < 400


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"counts": [1], "far": [], "far_count": 0},
        {"counts": [-1] * BINS, "far": [], "far_count": 0},
        {"counts": ["x"] * BINS, "far": [], "far_count": 0},
        {"counts": [0] * BINS, "far": None, "far_count": 0},
    ],
)
def test_what_is_no_history_is_refused(document):
    with pytest.raises((ValueError, TypeError, KeyError)):
        IdleTimes.from_json(document)


@given(idle_times, st.floats(0, 4 * REACH))
def test_windows_are_in_order_and_loaded_for_no_longer_than_idle(idle, moment):
    windows = after(*idle).windows(TTL)
    assert 0 <= windows.begin <= windows.end
    assert 0 <= windows.loaded(moment) <= moment
    assert windows.want(min(LINGER, TTL) / 2)


@given(idle_times, st.floats(0, 4 * REACH), st.floats(0, 4 * REACH))
def test_loaded_grows_with_idleness_only_while_instances_are_wanted(idle, one, other):
    windows = after(*idle).windows(TTL)
    earlier, later = sorted((one, other))
    grown = windows.loaded(later) - windows.loaded(earlier)
    assert -1e-6 <= grown <= later - earlier + 1e-6
    if not windows.want(earlier) and not windows.want(later) and later < windows.begin:
        assert grown == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(-5, 50), st.floats(0, 1))
def test_nothing_is_started_ahead_beyond_need_room_or_memory(put_away, held, room, memory):
    started = instances_to_prewarm(put_away, held, room, memory)
    assert 0 <= started <= max(0, room)
    assert held + started <= max(held, put_away)
    if memory < MEMORY_RESERVE:
        assert started == 0


def test_as_many_come_back_as_there_were():
    assert instances_to_prewarm(put_away=3, held=1, room=10, memory_available=0.5) == 2
