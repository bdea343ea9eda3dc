"""What trembles is not followed; what rises, falls far, or ends is, at once."""

from martlet.scheduling.steadiness import WINDOW, Steadiness


def test_a_little_less_counts_as_before_for_a_while():
    steadiness = Steadiness()
    assert [
        steadiness.steadied(second, {"a": wanted})["a"] for second, wanted in enumerate([3, 2, 3, 2, 2])
    ] == [3] * 5
    assert steadiness.steadied(2 + WINDOW, {"a": 2}) == {"a": 3}
    assert steadiness.steadied(3 + WINDOW, {"a": 2}) == {"a": 2}


def test_what_rises_or_falls_far_or_ends_counts_at_once():
    steadiness = Steadiness()
    for second, wanted in enumerate([1, 9, 5, 6, 0, 2, 0]):
        assert steadiness.steadied(second, {"a": wanted}) == {"a": wanted}


def test_each_node_is_seen_alone_and_who_leaves_is_forgotten():
    steadiness = Steadiness()
    assert steadiness.steadied(0, {"a": 3, "b": 2}) == {"a": 3, "b": 2}
    assert steadiness.steadied(1, {"a": 2, "b": 3}) == {"a": 3, "b": 3}
    assert steadiness.steadied(2, {"b": 2}) == {"b": 3}
    assert steadiness.steadied(3, {"a": 2, "b": 2}) == {"a": 2, "b": 3}
