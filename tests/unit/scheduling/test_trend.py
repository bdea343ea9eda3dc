"""The slow loop, over calls that a test makes up."""

from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.trend import Pace, Trend, spread


def run(loads, *, step=2.0, concurrency=1, most=1000, pace=None):
    """Returns what was forecast at each step; instances are there as soon as they are wanted."""
    trend, ready, found = Trend(pace or Pace()), 0, []
    for number, calls in enumerate(loads):
        trend.observe(number * step, calls)
        ready = trend.forecast(number * step, ready, concurrency, most).instances
        found.append(ready)
    return found


def test_a_steady_load_has_what_it_takes_with_some_to_spare():
    assert run([7.0] * 60)[-1] == 10
    assert run([70.0] * 60, concurrency=10)[-1] == 10


def test_a_short_dip_ends_nothing_and_a_long_one_goes_down_to_nothing():
    found = run([7.0] * 40 + [0.0] * 3 + [7.0] * 20)
    assert min(found[20:]) >= 8
    assert run([7.0] * 40 + [0.0] * 120)[-1] == 0


def test_a_sudden_load_is_met_long_before_the_stable_window_and_nothing_is_given_up_while_it_panics():
    found = run([1.0] * 40 + [50.0] * 6 + [0.0] * 20)
    assert found[45] >= 70, "the stable window alone would want about 15"
    assert min(found[46:60]) >= found[45]


def test_a_sudden_load_rises_no_quicker_than_it_may():
    found = run([1.0] * 40 + [1000.0] * 10, pace=Pace(up=2.0))
    for before, after in zip(found[40:], found[43:], strict=False):
        assert after <= 2 * max(before, 1) + 1


def test_what_goes_down_goes_no_quicker_than_it_may():
    pace = Pace(stable=6.0, down=2.0)
    found = run([70.0] * 10 + [0.0] * 40, pace=pace)
    for before, after in zip(found[10:], found[13:], strict=False):
        assert after >= before // 2 - 1
    assert found[-1] == 0


@given(st.lists(st.floats(0, 500), min_size=1, max_size=80), st.integers(1, 50), st.integers(1, 20))
def test_there_are_never_more_than_there_may_be(loads, most, concurrency):
    assert all(0 <= each <= most for each in run(loads, most=most, concurrency=concurrency))


@given(
    st.integers(0, 30),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 9)),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
)
def test_instances_are_spread_within_the_shares(instances, calls, shares):
    parts = spread(instances, calls, shares)
    assert sum(parts.values()) == min(instances, sum(shares.values()))
    assert all(count <= shares[name] for name, count in parts.items())


def test_they_are_where_the_calls_are():
    assert spread(6, {"a": 4.0, "b": 2.0}, {"a": 9, "b": 9, "c": 9}) == {"a": 4, "b": 2}


def test_what_is_over_says_so():
    trend = Trend(Pace())
    trend.observe(0.0, 3.0)
    trend.forecast(0.0, 0, 1, 10)
    assert not trend.over
    for second in range(1, 200):
        trend.observe(second, 0.0)
        trend.forecast(second, 0, 1, 10)
    assert trend.over
