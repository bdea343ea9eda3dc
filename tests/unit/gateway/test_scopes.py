"""What a key must be allowed for requests to the platform itself."""

import pytest

from martlet.gateway.gateway import scope_for
from martlet.model import Scope


@pytest.mark.parametrize(
    ("method", "segment", "scope"),
    [
        (b"GET", b"functions", Scope.MANAGE),
        (b"POST", b"functions", Scope.MANAGE),
        (b"GET", b"keys", Scope.ADMIN),
        (b"GET", b"images", Scope.MANAGE),
        (b"HEAD", b"images", Scope.MANAGE),
        (b"POST", b"images", Scope.ADMIN),
        (b"DELETE", b"images", Scope.ADMIN),
        (b"get", b"images", Scope.ADMIN),
    ],
)
def test_looking_takes_less_than_changing(method: bytes, segment: bytes, scope: Scope):
    assert scope_for(method, segment) is scope
