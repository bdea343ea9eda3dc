"""What a runtime does not do is said in the guides, in the words of the ``cannot.toml`` beside its function."""

import pytest

from tests.runtimes.conftest import FUNCTIONS, cannot

DOCS = FUNCTIONS.parents[2] / "docs"
FEATURES = {"streaming", "concurrency", "errors", "half-closed", "health", "missing-response", "request-ids"}


@pytest.mark.parametrize("folder", sorted(FUNCTIONS.iterdir()), ids=lambda folder: folder.name)
def test_what_a_runtime_cannot_do_is_documented(folder):
    guides = " ".join(" ".join(path.read_text().split()) for path in DOCS.rglob("*.md"))
    reasons = cannot(folder)
    assert reasons.keys() <= FEATURES
    assert [reason for reason in reasons.values() if reason not in guides] == []
