"""Whatever is uploaded is taken as it is or refused with a sentence that names the entry; nothing lies elsewhere."""

import tarfile
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from martlet.errors import Invalid
from martlet.package.rules import safe_path
from tests.fuzz.archive import check_archive, link, member, tar_of, zip_of
from tests.fuzz.entries import archives, names, targets


@given(archives)
def test_no_archive_reaches_outside_of_its_folder_or_over_its_limits(content: bytes) -> None:
    check_archive(content)


@given(names)
def test_a_name_is_taken_or_refused_by_its_name(name: str) -> None:
    assume(not name.endswith("/"))
    refusal = check_archive(tar_of([member("good", b"x"), member(name, b"x")]))
    try:
        allowed = safe_path(name) not in ("", "good")
    except Invalid:
        allowed = False
    assert bool(refusal) != allowed
    if not allowed:
        assert ascii(name)[:100].rstrip("'\"") in refusal


@pytest.mark.parametrize("form", ["tar", "zip"])
@given(target=targets, depth=st.integers(0, 3))
def test_a_link_is_taken_exactly_where_it_stays_inside(form: str, target: str, depth: int) -> None:
    assume(target.isprintable() and target.isascii() and len(target) < 200)
    name = "d/" * depth + "link"
    if form == "tar":
        refusal = check_archive(
            tar_of([member("f", b"x"), member(name, kind=tarfile.SYMTYPE, target=target)])
        )
    else:
        refusal = check_archive(zip_of([(link("x"), b"f"), (link(name), target.encode())]))
    level, inside = depth, target not in ("",) and not target.startswith("/")
    for step in Path(target).parts:
        level += -1 if step == ".." else 1
        inside = inside and level >= 0
    if inside:
        assert not refusal
    if not inside:
        assert f"'{name}'" in refusal
