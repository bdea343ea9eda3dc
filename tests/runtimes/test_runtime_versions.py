"""Versions of a runtime beside the newest: they build, serve and fail as that does, whose contract shows the rest."""

import pytest

from tests.runtimes.conftest import COMPILED, contract_functions
from tests.runtimes.test_runtime_contract import (  # noqa: F401  (these are the tests)
    test_a_body_comes_back,
    test_a_process_that_ends_is_replaced,
    test_a_stream_comes_as_it_is_written,
    test_an_error_is_told,
    test_an_object_is_json,
    test_what_is_logged_has_the_id_of_the_request,
)

pytestmark = [
    COMPILED,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.parametrize("function", contract_functions(older=True), indirect=True, scope="module"),
]
