"""Configurations take values as people write them, and nothing that only looks like them."""

import pytest
from pydantic import ValidationError

from martlet.model import FunctionConfig


@pytest.mark.parametrize(
    ("given", "field", "expected"),
    [
        ({"memory": "128Mi"}, "memory", 128 * 1024**2),
        ({"cpu_limit": 0.5}, "cpu_limit", 500),
        ({"timeout": 3}, "timeout", 3.0),
        ({"concurrency": 2.0}, "concurrency", 2),
        ({"environment": {"NUMBER": 7}}, "environment", {"NUMBER": "7"}),
        ({"rate_limit": "50/s"}, "rate_limit", (50, 1)),
        ({"rate_limit": 0}, "rate_limit", (0, 1)),
    ],
)
def test_values_are_read_as_people_write_them(given, field, expected):
    assert getattr(FunctionConfig.model_validate(given), field) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"public": 0},
        {"public": "yes"},
        {"timeout": "3"},
        {"timeout": True},
        {"idle_ttl": "3"},
        {"concurrency": "2"},
        {"concurrency": True},
        {"concurrency": 1.5},
        {"environment": {"FLAG": True}},
        {"rate_limit": False},
        {"memory": True},
    ],
)
def test_values_of_another_type_are_refused(given):
    with pytest.raises(ValidationError):
        FunctionConfig.model_validate(given)


@pytest.mark.parametrize(
    "given", [{"memory": "9" * 400}, {"cpu_limit": "9" * 400}, {"rate_limit": "9" * 5000 + "/s"}]
)
def test_numbers_without_end_are_refused(given):
    with pytest.raises(ValidationError):
        FunctionConfig.model_validate(given)
