"""When a template is made."""

import pytest

from martlet.scheduling.forking import WORTHWHILE, is_template_worthwhile


@pytest.mark.parametrize("mode", ["sync", "wsgi", "async"])
def test_code_that_takes_long_to_load_is_worth_a_template(mode):
    assert is_template_worthwhile(mode, WORTHWHILE)


def test_code_that_loads_quickly_is_not():
    assert not is_template_worthwhile("sync", WORTHWHILE / 2)


def test_an_application_with_a_lifespan_is_not():
    assert not is_template_worthwhile("asgi", 10.0)
