"""Which of the ids that are lent to a user are whose."""

import os
from pathlib import Path

import pytest

from martlet.drivers import subordinate
from martlet.drivers.subordinate import PER_LANE, NotLent, lent_to


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes what is lent: ``lent(subuid, subgid)``."""
    files = {"newuidmap": tmp_path / "subuid", "newgidmap": tmp_path / "subgid"}
    for program in files:
        (tmp_path / program).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(subordinate, "_LENT", files)

    def write(*texts: str) -> None:
        for file, text in zip(files.values(), texts, strict=True):
            file.write_text(text)

    return write


def test_each_lane_has_ids_of_its_own_under_the_names_that_root_gives(lent):
    lent(f"somebody:1:65536\n{os.geteuid()}:100000:65536\n", f"{os.geteuid()}:200000:65536\n")

    first, second = lent_to(0, 2_000_000_000), lent_to(1, 2_000_065_536)

    outside = [
        range(extent.outside, extent.outside + extent.count)
        for ids in (first, second)
        for extent in ids.users[1:]
    ]
    assert [extent.inside for extent in (first.users[1], second.groups[1])] == [2_000_000_000, 2_000_065_536]
    assert set(outside[0]).isdisjoint(outside[1])
    assert min(map(min, outside)) >= 100_000
    assert max(map(max, outside)) < 100_000 + 2 * PER_LANE
    assert (first.users[0].inside, first.users[0].outside) == (0, os.geteuid())
    assert all(200_000 <= extent.outside < 265_536 for extent in (*first.groups, *second.groups))


def test_the_largest_range_counts(lent):
    both = f"{os.geteuid()}:5000:10\n{os.geteuid()}:100000:65536\n"
    lent(both, both)

    assert lent_to(0, 1).users[1].outside >= 100_000


@pytest.mark.parametrize(
    ("text", "words"), [("", "lends .* no ids"), ("{user}:100000:1500", "lends .* 1500 ids, and lane 1")]
)
def test_too_few_ids_are_refused_with_what_to_do(lent, text: str, words: str):
    lent(f"{os.geteuid()}:1:65536", text.format(user=os.geteuid()))

    with pytest.raises(NotLent, match=words) as caught:
        lent_to(1, 1)

    assert "subgid" in str(caught.value)
    assert "add a line" in caught.value.remedy


def test_without_the_programs_it_says_what_to_install(lent, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(NotLent, match="newuidmap is not installed") as caught:
        lent_to(0, 1)

    assert "uidmap" in caught.value.remedy
