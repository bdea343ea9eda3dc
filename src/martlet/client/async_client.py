"""The client whose answers are awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
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


class AsyncClient(Api):
    """Talks to a platform, as `Client` does; but its methods are to be awaited."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        on_missing: OnMissing | None = None,
    ) -> None:
        """Opens no connection yet; the arguments are those of `Client`."""
        self.address = find_address(url, key)
        self._on_missing = on_missing
        self._http = httpx2.AsyncClient(**options(self.address), transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def run(self, plan: Plan[Result]) -> Result:
        """Makes the requests of a plan and returns its result."""
        with closing(plan):
            try:
                call = next(plan)
                while True:
                    try:
                        response = await self._send(call)
                    except ClientError as error:
                        call = plan.throw(error)
                    else:
                        call = plan.send(response)
            except StopIteration as end:
                result: Result = end.value
                return result

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[httpx2.Response]:
        """Makes a request; gives its answer before the body has come.

        Raises:
            ApiError: the platform refused it.
            Unreachable: the platform does not answer, or stopped to.
        """
        try:
            async with self._http.stream(**call.arguments()) as response:
                if may_be_error(call, response):
                    await response.aread()
                    error = error_of(self.address, call, response)
                    if error is not None:
                        raise error
                if self._on_missing is not None and (missing := machines_missing(call, response)):
                    self._on_missing(missing)
                yield response
        except httpx2.TransportError as broken:
            raise transport_error(self.address, broken) from broken

    async def events(self, call: Call) -> AsyncIterator[Document]:
        """Makes a request and yields the JSON of each server-sent event."""
        async with self.open(call) as response:
            async for event in httpx2.EventSource(response):
                if event.event != "missing":
                    yield document(event)
                elif self._on_missing is not None:
                    self._on_missing(document(event)["missing"])

    async def _send(self, call: Call) -> httpx2.Response:
        async with self.open(call) as response:
            if call.on_event is None:
                await response.aread()
            else:
                async for event in httpx2.EventSource(response):
                    call.on_event(document(event))
        return response
