"""Traces are read as they are, and refused where they are not what they should be."""

import pytest
from sample import every, write_trace

from martlet.errors import Invalid
from martlet.simulation.trace import Trace


@pytest.fixture
def folder(tmp_path):
    return write_trace(tmp_path, {"one": {0: 1, 3: 20}, "two": every(2)}, minutes=10, run_ms=250, memory=64.5)


def change(folder, kind, old, new):
    path = folder / f"made_{kind}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def read(folder):
    return list(Trace(folder).traffic())


def test_a_function_has_its_run_time_its_memory_and_the_minutes_with_invocations(folder):
    one, _ = read(folder)
    assert (one.run_time, one.memory, one.minutes) == (0.25, 64.5, [(0, 1), (3, 20)])
    assert Trace(folder).minutes == 10


def test_columns_are_found_by_name_and_others_ignored(folder):
    change(folder, "inv", "HashFunction,HashApp,HashOwner,", "HashApp,HashFunction,Trigger,")
    change(folder, "inv", "one,app-one,owner,", "app-one,one,http,")
    change(folder, "inv", "two,app-two,owner,", "app-two,two,timer,")
    assert read(folder)[0].minutes == [(0, 1), (3, 20)]


@pytest.mark.parametrize(
    ("kind", "old", "new", "place", "problem"),
    [
        (
            "inv",
            "one,app-one,owner,1,",
            "one,app-one,owner,x,",
            ":2: column minute_1: ",
            "'x' is not a number",
        ),
        ("inv", "owner,1,0,0,20,", "owner,1,0,0,-20,", ":2: column minute_4: ", "'-20'"),
        ("inv", "owner,1,0,0,20,", "owner,1,0,0,2.5,", ":2: column minute_4: ", "'2.5'"),
        ("inv", "owner,1,0,0,20,", "owner,1,0,0,,", ":2: column minute_4: ", "''"),
        ("inv", "owner,1,0,0,20,", "owner,1,0,0,99999999999,", ":2: column minute_4: ", "9999"),
        (
            "inv",
            "two,app-two,owner,",
            "two,app-two,owner,7,",
            ":3: ",
            "the row has 14 columns, the header 13",
        ),
        ("inv", "two,app-two", "three,app-two", ":3: column HashFunction: ", "'three' has no row"),
        ("inv", "two,app-two", "two,app-three", ":3: column HashApp: ", "'app-three' has no row"),
        ("inv", "minute_5,minute_6", "minute_6,minute_5", ":1: ", "follow one another"),
        ("inv", "minute_5,", "five,", ":1: ", "follow one another"),
        ("inv", "minute_1,", "", ":1: column minute_1: ", "one column of this name"),
        ("inv", "HashApp", "App", ":1: column HashApp: ", "one column of this name"),
        ("inv", "HashOwner", "HashApp", ":1: column HashApp: ", "one column of this name"),
        ("inv", "app-two", '"app-two', ":", "unexpected end of data"),
        ("run", "1,250", "1,fast", ":2: column Average: ", "'fast' is not a number from 0"),
        ("run", "1,250", "1,-1", ":2: column Average: ", "'-1'"),
        ("run", "1,250", "1,nan", ":2: column Average: ", "'nan'"),
        ("run", "two,", "one,", ":3: column HashFunction: ", "had a row before"),
        ("run", "Average", "Mean", ":1: column Average: ", "one column of this name"),
        ("mem", "64.5", "inf", ":2: column AverageAllocatedMb: ", "'inf'"),
    ],
)
def test_what_is_malformed_is_named_by_file_line_and_column(folder, kind, old, new, place, problem):
    change(folder, kind, old, new)
    with pytest.raises(Invalid) as refused:
        read(folder)
    assert f"made_{kind}.csv{place}" in refused.value.detail
    assert problem in refused.value.detail


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "made_mem.csv").write_bytes(b"HashApp,AverageAllocatedMb\n\xff\xfe,1\n")
    with pytest.raises(Invalid, match=r"made_mem\.csv:\d: this is no UTF-8"):
        read(folder)


@pytest.mark.parametrize("kind", ["inv", "run", "mem"])
def test_a_missing_an_empty_and_a_second_file_are_refused(folder, kind):
    path = folder / f"made_{kind}.csv"
    text = path.read_text()
    (folder / f"more_{kind}.csv").write_text(text)
    with pytest.raises(Invalid, match=rf"2 files \*_{kind}\.csv"):
        read(folder)
    (folder / f"more_{kind}.csv").unlink()
    path.write_text("")
    with pytest.raises(Invalid, match=rf"made_{kind}\.csv:1: column"):
        read(folder)
    path.unlink()
    with pytest.raises(Invalid, match=rf"0 files \*_{kind}\.csv"):
        read(folder)


def test_rows_are_read_one_by_one(folder):
    with (folder / "made_inv.csv").open("a") as file:
        file.write("broken\n")
    rows = Trace(folder).traffic()
    assert next(rows).minutes
    assert next(rows).minutes
    with pytest.raises(Invalid, match=":4: the row has 1 columns"):
        next(rows)
