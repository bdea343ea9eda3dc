import os

import pytest

from martlet.sandbox.rehearsal import STEPS, rehearse
from tests.alone import alone

pytestmark = pytest.mark.root


def test_root_is_refused_nothing():
    assert alone(rehearse) == {}


def test_without_rights_every_step_is_refused_with_the_kernels_words():
    def as_nobody() -> dict[str, str]:
        os.setresuid(65534, 65534, 65534)
        return rehearse()

    refused = alone(as_nobody)

    assert set(refused) == set(STEPS)
    assert all("not permitted" in words for words in refused.values())
