import pytest

from martlet.drivers import identities
from martlet.drivers.driver import DriverError
from martlet.drivers.identities import Identities


def test_lanes_share_no_identity():
    ranges = [
        range(Identities(lane).take(), Identities(lane).take() + identities.PER_LANE) for lane in (0, 1, 255)
    ]

    assert ranges[0].stop <= ranges[1].start + 2
    assert ranges[2].stop < 2**31


def test_an_identity_that_is_held_is_not_given_again():
    some = Identities(0, count=3)
    first, second = some.take(), some.take()

    some.give_back(first)

    assert some.take() not in (first, second)
    assert some.take() == first
    with pytest.raises(DriverError, match="in use"):
        some.take()


def test_an_identity_of_an_earlier_life_is_held_until_it_comes_back():
    some = Identities(1)
    first = Identities(1).take()

    some.hold(first)

    assert some.take() != first
    with pytest.raises(DriverError, match="no free user id"):
        some.hold(first)
    some.give_back(first)
    some.hold(first)


def test_an_identity_of_another_lane_is_not_held():
    with pytest.raises(DriverError, match="no free user id"):
        Identities(1).hold(Identities(2).take())
