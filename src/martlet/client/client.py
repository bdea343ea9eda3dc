"""The client that waits for its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Self

import httpx2

from martlet.client.address import find_address
from martlet.client.api import Api
from martlet.client.call import Call, Document, Plan, Result
from martlet.client.errors import ClientError
from martlet.client.wire import (
    OnMissing,
    document,
    error_of,
    machines_missing,
    may_be_error,
    options,
    transport_error,
)


class Client(Api):
    """Talks to a platform. Its methods are those of `Api`.

    Raises:
        ClientError: the address is not one, or needs a key.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
        on_missing: OnMissing | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: where the platform is; ``MARTLET_URL``, or the one on this machine, by default.
            key: the key to show; ``MARTLET_KEY``, or for this machine the one in its data folder, by default.
            transport: carries the requests instead of a network connection.
            on_missing: called with the ids of the machines of a cluster that an answer lacks, as they are silent.
        """
        self.address = find_address(url, key)
        self._on_missing = on_missing
        self._http = httpx2.Client(**options(self.address), transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def run(self, plan: Plan[Result]) -> Result:
        """Makes the requests of a plan and returns its result."""
        with closing(plan):
            try:
                call = next(plan)
                while True:
                    try:
                        response = self._send(call)
                    except ClientError as error:
                        call = plan.throw(error)
                    else:
                        call = plan.send(response)
            except StopIteration as end:
                result: Result = end.value
                return result

    @contextmanager
    def open(self, call: Call) -> Iterator[httpx2.Response]:
        """Makes a request; gives its answer before the body has come.

        Raises:
            ApiError: the platform refused it.
            Unreachable: the platform does not answer, or stopped to.
        """
        try:
            with self._http.stream(**call.arguments()) as response:
                if may_be_error(call, response):
                    response.read()
                    error = error_of(self.address, call, response)
                    if error is not None:
                        raise error
                if self._on_missing is not None and (missing := machines_missing(call, response)):
                    self._on_missing(missing)
                yield response
        except httpx2.TransportError as broken:
            raise transport_error(self.address, broken) from broken

    def events(self, call: Call) -> Iterator[Document]:
        """Makes a request and yields the JSON of each server-sent event."""
        with self.open(call) as response:
            for event in httpx2.EventSource(response):
                if event.event != "missing":
                    yield document(event)
                elif self._on_missing is not None:
                    self._on_missing(document(event)["missing"])

    def _send(self, call: Call) -> httpx2.Response:
        with self.open(call) as response:
            if call.on_event is None:
                response.read()
            else:
                for event in httpx2.EventSource(response):
                    call.on_event(document(event))
        return response
