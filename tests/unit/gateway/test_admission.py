"""What is said to those who have no key that counts."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from martlet.errors import Unauthenticated
from martlet.gateway.admission import Admission
from martlet.units import NO_LIMIT


@pytest.mark.parametrize(
    ("authorization", "says"),
    [
        (None, "send a key: Authorization: Bearer <key>"),
        (b"demo-key", "the Authorization header has no key: send Authorization: Bearer <key>"),
        (b"Basic ZGVtby1rZXk6", "the Authorization header has no key: send Authorization: Bearer <key>"),
        (b"Bearer demo-key", "the key is unknown, expired or revoked"),
    ],
)
def test_what_is_wrong_with_a_key_is_told_from_what_is_wrong_with_the_header(
    authorization: bytes | None, says: str
):
    view = cast(Any, SimpleNamespace(keys={}, on_change=[]))
    admission = Admission(view, cast(Any, None), NO_LIMIT, NO_LIMIT)

    with pytest.raises(Unauthenticated) as caught:
        admission.authenticated(authorization, "192.0.2.1")

    assert caught.value.detail == says
