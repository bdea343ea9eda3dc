"""How many ready cells are kept follows what was wanted of them lately."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from martlet.scheduling.stock import MEMORY_RESERVE, Demand, cells_wanted

CALM = Demand(least=4, most=16, taken=0, memory_available=0.5)


def test_a_calm_stock_holds_its_least():
    assert cells_wanted(CALM) == 4
    assert cells_wanted(replace(CALM, taken=3)) == 4


def test_a_burst_makes_it_grow_up_to_its_most():
    assert cells_wanted(replace(CALM, taken=9)) == 9
    assert cells_wanted(replace(CALM, taken=100)) == 16


def test_nothing_is_made_where_memory_is_short():
    assert cells_wanted(replace(CALM, taken=9, memory_available=MEMORY_RESERVE - 0.01)) == 0


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 500))
def test_it_never_holds_more_than_the_larger_bound(least, most, taken):
    assert least <= cells_wanted(Demand(least, most, taken, 1.0)) <= max(least, most)
