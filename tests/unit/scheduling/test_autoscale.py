"""How many instances a pool starts."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.autoscale import Load, instances_to_start

QUIET = Load(
    waiting=0,
    instances=1,
    starting=0,
    concurrency=1,
    run_time=0.0,
    oldest_run=0.0,
    start_time=0.005,
    room=10,
    core_idle=0.5,
)


def test_nothing_waits_nothing_starts():
    assert instances_to_start(QUIET) == 0


def test_the_first_request_starts_one_instance_and_a_thousand_at_once_still_one():
    assert instances_to_start(replace(QUIET, instances=0, waiting=1)) == 1
    assert instances_to_start(replace(QUIET, instances=0, waiting=1000)) == 1
    assert instances_to_start(replace(QUIET, instances=0, waiting=1000, starting=1)) == 0


def test_a_quick_function_keeps_one_instance_under_many_connections():
    assert instances_to_start(replace(QUIET, waiting=100, run_time=0.00003)) == 0


def test_a_slow_function_gets_an_instance_for_each_waiting_request():
    assert instances_to_start(replace(QUIET, waiting=5, run_time=1.0)) == 5


def test_a_request_that_runs_long_shows_the_function_is_slow_before_it_ends():
    assert instances_to_start(replace(QUIET, waiting=5, run_time=0.0001, oldest_run=0.1)) == 5


def test_concurrency_counts_slots_not_instances():
    assert instances_to_start(replace(QUIET, waiting=100, run_time=1.0, concurrency=50)) == 2


def test_those_already_starting_are_not_started_again():
    assert instances_to_start(replace(QUIET, waiting=5, run_time=1.0, starting=5)) == 0


def test_on_a_full_core_a_quick_function_gets_no_more_and_a_slow_one_does():
    assert instances_to_start(replace(QUIET, waiting=30, run_time=0.005)) > 0
    assert instances_to_start(replace(QUIET, waiting=30, run_time=0.005, core_idle=0.0)) == 0
    assert instances_to_start(replace(QUIET, waiting=5, run_time=1.0, core_idle=0.0)) == 5


loads = st.builds(
    Load,
    waiting=st.integers(0, 10_000),
    instances=st.integers(0, 1000),
    starting=st.integers(0, 1000),
    concurrency=st.integers(1, 1000),
    run_time=st.floats(0, 3600),
    oldest_run=st.floats(0, 3600),
    start_time=st.floats(0.0001, 60),
    room=st.integers(-10, 1000),
    core_idle=st.floats(0, 1),
)


@given(loads)
def test_it_never_starts_more_than_there_is_room_or_use_for(load):
    started = instances_to_start(load)
    assert 0 <= started <= max(0, load.room)
    assert started <= load.waiting


@given(loads)
def test_waiting_requests_never_starve(load):
    if load.waiting and load.room > 0 and not load.instances and not load.starting:
        assert instances_to_start(load) >= 1
