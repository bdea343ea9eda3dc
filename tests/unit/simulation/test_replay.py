"""What policies cost on a trace."""

import pytest
from sample import DAY, a_day, every, write_trace

from martlet.simulation.replay import keep_for, learn, replay
from martlet.simulation.trace import Trace

POLICIES = {"fixed": keep_for(600), "learned": learn(600)}


def replayed(folder, traffic, policies=POLICIES, **given):
    return replay(Trace(write_trace(folder, traffic, **given)), policies)


def test_learning_beats_ten_minutes_in_cold_starts_and_in_memory(tmp_path):
    outcomes = replayed(tmp_path, a_day())
    assert outcomes["learned"].invocations == outcomes["fixed"].invocations > 0
    assert outcomes["learned"].cold_starts < outcomes["fixed"].cold_starts
    assert outcomes["learned"].wasted < outcomes["fixed"].wasted
    assert outcomes["learned"].rate_of_functions(0.75) <= outcomes["fixed"].rate_of_functions(0.75)


def test_a_timer_slower_than_the_fixed_time_is_always_cold_under_it_and_learned_soon(tmp_path):
    outcomes = replayed(tmp_path, {"timer": every(15)})
    assert outcomes["fixed"].rate == 1.0
    assert outcomes["learned"].cold_starts < 10


def test_the_costs_of_one_idle_time_are_exact(tmp_path):
    calls = {0: 1, 5: 1}  # at 00:30 and at 05:30, each for 6 s
    outcomes = replayed(
        tmp_path,
        {"twice": calls},
        {"kept": keep_for(600), "dropped": keep_for(60)},
        minutes=60,
        run_ms=6000,
        memory=100,
    )
    assert outcomes["kept"].cold_starts == 1
    assert outcomes["kept"].wasted == pytest.approx(100 * (294 + 600))
    assert outcomes["dropped"].cold_starts == 2
    assert outcomes["dropped"].wasted == pytest.approx(100 * (60 + 60))


def test_nothing_is_wasted_after_the_end_of_the_trace_or_during_a_call(tmp_path):
    outcomes = replayed(tmp_path, {"late": {DAY - 1: 2}}, run_ms=15_000, memory=1)
    assert outcomes["fixed"].wasted == pytest.approx(
        15
    )  # from 23:59:30 to :45, and the call at :45 lasts till the end


def test_calls_of_a_minute_are_cold_too_where_nothing_is_kept_between_them(tmp_path):
    outcome = replayed(tmp_path, {"quick": {0: 10}}, {"none": keep_for(0)}, minutes=1)["none"]
    assert (outcome.invocations, outcome.cold_starts, outcome.wasted) == (10, 10, 0)


def test_a_trace_without_invocations_has_no_cold_starts(tmp_path):
    outcome = replayed(tmp_path, {"never": {}})["fixed"]
    assert (outcome.rate, outcome.rate_of_functions(0.75), outcome.wasted) == (0, 0, 0)
