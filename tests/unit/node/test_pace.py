import pytest

from martlet.node.pace import Pace


def test_a_burst_is_free() -> None:
    assert Pace(share=0.1, burst=0.02).spend(100.0, 0.015) == 0


def test_work_beyond_the_burst_is_paid_for_with_a_pause() -> None:
    pace = Pace(share=0.1, burst=0.02)
    assert pace.spend(100.0, 0.03) == pytest.approx(0.1)
    assert pace.spend(100.1, 0.001) == pytest.approx(0.01)
    assert pace.spend(100.2, 0.0) == 0


def test_debts_add_up() -> None:
    pace = Pace(share=0.1, burst=0.02)
    pace.spend(100.0, 0.03)
    assert pace.spend(100.0, 0.01) == pytest.approx(0.2)


def test_time_saves_up_no_more_than_the_burst() -> None:
    pace = Pace(share=0.1, burst=0.02)
    pace.spend(100.0, 0.01)
    assert pace.spend(1000.0, 0.02) == 0
    assert pace.spend(1000.0, 0.02) == pytest.approx(0.2)


def test_in_the_long_run_work_takes_its_share() -> None:
    pace, now, worked = Pace(share=0.1, burst=0.02), 50.0, 0.0
    while now < 60.0:
        pause = pace.spend(now, 0.004)
        worked += 0.004
        now += 0.004 + pause
    assert worked == pytest.approx(1.0, rel=0.1)
