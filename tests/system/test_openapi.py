"""The management API is what its description says: schemathesis makes requests from it, odd ones too."""

from typing import cast

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
    ],
)
def test_every_answer_is_described(case, described):
    key = {"Authorization": f"Bearer {described.admin_key}"}
    case.call_and_validate(base_url=described.url, headers=key)


def test_the_served_description_is_the_one_tested(described):
    assert described.client_for(None).get("/openapi.json").json() == description
