"""Which requests are answered later."""

from typing import Any, cast

import pytest

from martlet.gateway.acceptance import is_deferred
from martlet.gateway.routing import Routing
from martlet.http.exchange import Exchange
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import RegistryView

LATER = (b"prefer", b"respond-async")


@pytest.mark.parametrize(
    ("target", "host", "headers", "deferred"),
    [
        (b"/invoke/hello", b"127.0.0.1", [LATER], True),
        (b"/invoke/hello@live/a?b=c", b"127.0.0.1", [LATER], True),
        (b"/invoke/hello?b=c", b"127.0.0.1", [(b"prefer", b"wait=5, Respond-Async")], True),
        (b"/invoke/hello", b"127.0.0.1", [(b"prefer", b"wait=5"), LATER], True),
        (b"/invoke/hello", b"127.0.0.1", [], False),
        (b"/invoke/hello", b"127.0.0.1", [(b"prefer", b"respond-asynchronously")], False),
        (b"/functions/hello/a", b"127.0.0.1", [LATER], False),
        (b"/invoke/other", b"hello.localhost", [LATER], False),
        (b"/a", b"hello.localhost", [LATER], False),
    ],
)
def test_those_below_invoke_that_prefer_it(
    target: bytes, host: bytes, headers: list[tuple[bytes, bytes]], deferred: bool
) -> None:
    assert is_deferred(*routed(target, host, headers)) is deferred


def test_no_upgrade_is() -> None:
    exchange, route = routed(b"/invoke/hello", b"127.0.0.1", [LATER])
    exchange.upgrade = True
    assert not is_deferred(exchange, route)


def routed(target: bytes, host: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[Exchange, Any]:
    """Returns a request as the gateway has it, and its route."""
    exchange = Exchange(cast(Any, None), 0.0, headers)
    exchange.target = target
    return exchange, Routing(RegistryView(MemoryStore()), "localhost").route(target, host)
