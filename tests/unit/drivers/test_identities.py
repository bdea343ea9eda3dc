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


def test_an_identity_that_is_held_is_not_given_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(identities, "PER_LANE", 3)
    some = Identities(0)
    first, second = some.take(), some.take()

    some.give_back(first)

    assert some.take() not in (first, second)
    assert some.take() == first
    with pytest.raises(DriverError, match="in use"):
        some.take()
