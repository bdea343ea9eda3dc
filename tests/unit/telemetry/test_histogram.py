import random
from itertools import pairwise

import pytest

from martlet.telemetry.histogram import BOUNDS, Histogram


def histogram(*seconds: float) -> Histogram:
    made = Histogram()
    for value in seconds:
        made.observe(value)
    return made


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert histogram().percentile(0.5) is None
    assert histogram().count == 0


def test_bounds_belong_to_the_bucket_below_them() -> None:
    made = histogram(0.01)
    assert made.counts[BOUNDS.index(0.01)] == 1


def test_bounds_grow_evenly_and_hold_the_usual_ones() -> None:
    assert all(1.2 < upper / lower < 1.3 for lower, upper in pairwise(BOUNDS))
    assert {0.001, 0.0025, 0.005, 0.01, 0.1, 1.0, 2.5, 10.0, 1000.0} <= set(BOUNDS)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_percentiles_are_near_the_exact_ones(share: float) -> None:
    chance = random.Random(1)
    values = sorted(chance.lognormvariate(-6, 1) for _ in range(5000))
    exact = values[int(share * len(values)) - 1]
    assert histogram(*values).percentile(share) == pytest.approx(exact, rel=0.1)


def test_percentiles_do_not_leave_the_bucket() -> None:
    made = histogram(*[0.0021] * 100)
    assert 0.002 <= made.percentile(0.01) <= made.percentile(0.99) <= 0.0025


def test_nothing_and_for_ever_are_durations_too() -> None:
    made = histogram(0.0, 1e9)
    assert made.count == 2
    assert made.percentile(0.1) <= BOUNDS[0]
    assert made.percentile(1.0) == BOUNDS[-1]


def test_adding_is_observing_together() -> None:
    one, other, both = histogram(0.001, 0.5), histogram(0.5, 7.0), histogram(0.001, 0.5, 0.5, 7.0)
    one.add(other)
    assert (one.counts, one.total) == (both.counts, both.total)
    assert other.count == 2


def test_json_and_back() -> None:
    made = histogram(0.001, 0.5, 1e9)
    read = Histogram.from_json(made.to_json())
    assert (read.counts, read.total) == (made.counts, made.total)
    assert len(made.to_json()["buckets"]) == 3
