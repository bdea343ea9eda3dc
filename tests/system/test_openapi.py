"""The management API is what its description says: schemathesis makes requests from it, odd ones too."""

from typing import cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from martlet.control.api import create_app
from martlet.control.control import Control
from tests.system.conftest import Platform


@pytest.fixture(scope="module")
def described(make_platform) -> Platform:
    """A platform of its own: what is made up here deletes and changes things."""
    platform = make_platform(lanes=1, wrong_keys_per_client="off", rate_limit_per_client="off")
    platform.start()
    platform.deploy("hello", "def handle(r):\n    return 1\n")
    return platform


# A schema cannot say that code must load (or is answered 502, function_load_failed), that weights are 100 together, or
# that a function keeps its name: what fits the schemas of these may still be refused. Of all others, what fits must be
# accepted.
config = SchemathesisConfig.from_dict(
    {
        "operations": [
            {
                "include-path": path,
                "include-method": method,
                "checks": {
                    "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "422", "502"]},
                    "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "502"]},
                },
            }
            for method, path in (
                ("POST", "/functions"),
                ("PUT", "/functions/{name}"),
                ("PUT", "/functions/{name}/code"),
                ("PUT", "/functions/{name}/aliases/{alias}"),
            )
        ]
    }
)

# The streams never end, so they are tested by themselves.
description = create_app(cast(Control, None)).openapi()
schema = (
    schemathesis.openapi.from_dict(description, config=config)
    .exclude(path="/functions/{name}/logs")
    .exclude(path="/builds/{id}/logs")
)


OPERATIONS = [(each.ok().method.upper(), each.ok().path) for each in schema.get_all_operations()]
"""Named one by one: tests that schemathesis makes have one name, of which a parallel run runs the first only."""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_described(described: Platform, method: str, path: str) -> None:
    key = {"Authorization": f"Bearer {described.admin_key}"}

    operation = schema[path][method]
    takes_something = list(operation.iter_parameters()) or operation.body
    modes = list(GenerationMode) if takes_something else [GenerationMode.POSITIVE]

    @given(st.one_of(operation.as_strategy(generation_mode=mode) for mode in modes))
    @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=described.url, headers=key)

    check()


def test_the_served_description_is_the_one_tested(described):
    assert described.client_for(None).get("/openapi.json").json() == description
