"""What part of a limit each gateway gives out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.quota import part_of
from martlet.units import EventRate

demands = st.lists(st.floats(0, 1000), min_size=1, max_size=8)


@given(demands, st.integers(1000, 100_000), st.integers(1, 3600))
def test_all_parts_together_are_the_limit(asked, events, seconds):
    rate = EventRate(events, seconds)
    parts = [part_of(own, asked, rate) for own in asked]
    assert 1 - 1e-9 <= sum(parts) <= 1 + len(asked) / events + 1e-9


@given(demands, st.integers(1, 100_000), st.integers(1, 3600))
def test_no_gateway_is_left_with_less_than_one_request_in_a_period(asked, events, seconds):
    for own in asked:
        assert (
            1 <= part_of(own, asked, EventRate(events, seconds)) * events * (1 + 1e-9) <= events * (1 + 1e-9)
        )


@given(demands)
def test_while_less_is_asked_for_than_there_is_each_gets_what_it_is_asked_for(asked):
    rate = EventRate(int(sum(asked)) + 1, 1)
    for own in asked:
        assert part_of(own, asked, rate) * rate.events >= own - 1e-6


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ([0.0, 0.0], [0.5, 0.5]),  # nobody knows yet where they will be asked for
        ([60.0, 0.0], [0.8, 0.2]),
        ([300.0, 100.0], [0.75, 0.25]),
        ([500.0, 0.0], [1.0, 0.01]),
        ([7.0], [1.0]),
    ],
)
def test_the_part_follows_what_is_asked_for(asked, parts):
    assert [part_of(own, asked, EventRate(100, 1)) for own in asked] == pytest.approx(parts)
