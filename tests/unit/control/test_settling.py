import pytest

from martlet.control.settling import Settling
from martlet.model import LogLine


def line(at: float) -> LogLine:
    return LogLine(
        time=at, function="f", revision=1, instance="i", request_id=None, stream="stdout", message=str(at)
    )


def times(settling: Settling, now: float) -> list[float]:
    return [each.time for each in settling.due(now)]


def test_a_line_waits_for_older_ones_of_others() -> None:
    settling = Settling(0.5)
    settling.add(line(10.0), now=1.0)
    assert times(settling, 1.4) == []
    settling.add(line(9.0), now=1.4)
    assert settling.wait(1.4) == pytest.approx(0.1)
    assert times(settling, 1.5) == [9.0, 10.0]
    assert settling.wait(1.5) is None


def test_each_waits_for_as_long_as_the_first() -> None:
    settling = Settling(0.5)
    settling.add(line(10.0), now=1.0)
    settling.add(line(12.0), now=1.45)
    assert times(settling, 1.5) == [10.0]
    settling.add(line(11.0), now=1.9)  # 0.45 s after the younger one came
    assert times(settling, 1.96) == [11.0, 12.0]


def test_what_comes_too_late_comes_nevertheless() -> None:
    settling = Settling(0.5)
    settling.add(line(10.0), now=1.0)
    assert times(settling, 2.0) == [10.0]
    settling.add(line(9.0), now=2.0)
    assert times(settling, 2.5) == [9.0]


def test_lines_of_one_time_keep_the_order_in_which_they_came() -> None:
    settling = Settling(0.5)
    for number in range(3):
        settling.add(line(10.0).model_copy(update={"message": str(number)}), now=1.0)
    assert [each.message for each in settling.due(2.0)] == ["0", "1", "2"]
