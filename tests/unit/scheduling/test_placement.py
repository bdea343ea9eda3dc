"""Which lane decides, and what it grants."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.placement import BUSY_FORWARDS, Placement, place, ranking, share_of

HOME, OTHER = 0, 1


def placed(lane, **given):
    facts = {"held": {}, "max_instances": 10, "home_idle": 0, "recent_forwards": 0.0} | given
    return place(lane=lane, home=HOME, **facts)


def test_the_home_lane_starts_the_first_instance_itself():
    assert placed(HOME) is Placement.GRANT


def test_a_quiet_function_is_not_started_on_a_second_lane():
    assert placed(OTHER) is Placement.FORWARD
    assert placed(OTHER, held={HOME: 1}, home_idle=1) is Placement.FORWARD


def test_a_busy_function_gets_an_instance_where_its_requests_come_in():
    assert placed(OTHER, held={HOME: 1}, home_idle=1, recent_forwards=BUSY_FORWARDS) is Placement.GRANT
    assert placed(OTHER, held={HOME: 1}, home_idle=0) is Placement.GRANT


def test_the_limit_holds_over_all_lanes():
    assert placed(HOME, held={HOME: 1, OTHER: 1}, max_instances=2) is Placement.FULL
    assert placed(OTHER, held={HOME: 1, OTHER: 1}, max_instances=2, recent_forwards=99) is Placement.FULL


@given(st.text(), st.integers(1, 64))
def test_every_lane_is_ranked_once_and_all_agree(revision, lanes):
    assert ranking(revision, range(lanes)) == ranking(revision, reversed(range(lanes)))
    assert sorted(ranking(revision, range(lanes))) == list(range(lanes))


@given(st.text(), st.integers(2, 64), st.data())
def test_losing_a_lane_moves_only_what_it_was_home_of(revision, lanes, data):
    lost = data.draw(st.integers(0, lanes - 1))
    home = ranking(revision, range(lanes))[0]
    after = ranking(revision, [lane for lane in range(lanes) if lane != lost])[0]
    assert after == home or home == lost


def test_homes_are_spread_evenly():
    homes = Counter(ranking(f"f{n}@1", range(4))[0] for n in range(4000))
    assert all(800 < count < 1200 for count in homes.values())


@given(st.integers(1, 64), st.integers(0, 1000))
def test_shares_add_up(lanes, instances):
    ranked = ranking("f@1", range(lanes))
    assert sum(share_of(lane, ranked, instances) for lane in range(lanes)) == instances
