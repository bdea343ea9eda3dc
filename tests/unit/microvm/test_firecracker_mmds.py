"""What guests are told: for whom it is, of which format, and how much it may be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from martlet.microvm.firecracker.mmds import FORMAT, LIMIT, Metadata, MetadataError, NotYours

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
variables = st.dictionaries(texts, texts, max_size=4)


@given(token=texts.filter(bool), environment=variables, secrets=variables)
def test_what_is_written_is_read(token: str, environment: dict[str, str], secrets: dict[str, str]):
    metadata = Metadata(token, environment, secrets)
    assert Metadata.from_document(json.loads(json.dumps(metadata.store()))["martlet"], token) == metadata


@given(document=st.none() | st.lists(texts, max_size=2) | variables)
def test_what_is_not_ours_is_refused(document: Any):
    with pytest.raises(MetadataError):
        Metadata.from_document(document, "token")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": FORMAT + 1}, "make the template anew"),
        ({"boot_token": 5}, "not a document of Martlet's"),
        ({"environment": ["A"]}, "environment: it is not an object of texts"),
        ({"secrets": {"A": 5}}, "secrets: it is not an object of texts"),
    ],
)
def test_a_document_of_another_shape_is_refused_by_name(change: dict[str, Any], words: str):
    document = Metadata("token").store()["martlet"] | change
    with pytest.raises(MetadataError, match=words) as refused:
        Metadata.from_document(document, "token")
    assert not isinstance(refused.value, NotYours)


@pytest.mark.parametrize("token", ["", "toke", "token ", "t\u043eken"])
def test_another_boot_token_is_refused(token: str):
    with pytest.raises(NotYours):
        Metadata.from_document(Metadata("token").store()["martlet"], token)


def test_the_limit_is_that_of_firecracker_to_the_byte():
    frame = len(json.dumps(Metadata("t", {"A": ""}).store(), separators=(",", ":")))
    Metadata("t", {"A": "é" * ((LIMIT - frame) // 2)}).store()
    with pytest.raises(MetadataError, match="may take 51200: put large values into the package"):
        Metadata("t", {"A": "é" * ((LIMIT - frame) // 2 + 1)}).store()


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        (Metadata(""), "boot_token"),
        (Metadata("t", {"A": "\udc80"}), r"environment\.A"),
        (Metadata("t", {}, {"B\udc80": ""}), r"secrets\.B.udc80"),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(metadata: Metadata, named: str):
    with pytest.raises(MetadataError, match=named):
        metadata.store()


def test_secrets_are_not_shown():
    shown = repr(Metadata("s3cret", {"A": "1"}, {"KEY": "s3cret"}))
    assert "s3cret" not in shown
    assert "'A'" in shown
