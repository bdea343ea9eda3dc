"""How a lane tells another that nothing of a request was begun, for lack of room or code, so that it may run elsewhere.

The mark is a header that instances cannot set: what they say of ``x-martlet-…`` is dropped (`Slot`).
"""

from __future__ import annotations

import orjson

from martlet.errors import MartletError, NoCapacity, Overloaded, Unavailable
from martlet.http.exchange import Exchange, Header

MARK = b"x-martlet-refused"

NO_ROOM = (Overloaded, NoCapacity, Unavailable)
"""The errors that say it; the last one where the code of a function, or what is known of it, is out of reach there."""
_BY_CODE: dict[bytes, type[MartletError]] = {kind.code.encode(): kind for kind in NO_ROOM}


def refuse(exchange: Exchange, error: MartletError, headers: tuple[Header, ...]) -> None:
    """Answers a lane that nothing of its request was begun; ``error`` is one of `NO_ROOM`."""
    exchange.problem(error, (*headers, (MARK, error.code.encode())))


def refusal(code: bytes, body: bytes) -> MartletError:
    """Returns the error that another lane has refused a request with.

    Args:
        code: what the mark says.
        body: the problem document; it may be empty (of a HEAD request).
    """
    kind = _BY_CODE.get(code, NoCapacity)
    document = orjson.loads(body) if body else {}
    return kind(str(document.get("detail", "")))
