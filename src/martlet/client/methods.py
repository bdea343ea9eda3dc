"""How one description of a request becomes a method of both clients.

Each class here is a descriptor: read from a `Client` it is a method that waits, read from an `AsyncClient`
one to await. The arguments and their types are those of the function that describes the request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from martlet.client.call import Call, Document, Plan

if TYPE_CHECKING:
    import httpx2

    from martlet.client.async_client import AsyncClient
    from martlet.client.client import Client

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Method(Generic[Arguments, Result]):
    """Runs a plan and returns its result."""

    def __init__(self, plan: Callable[Arguments, Plan[Result]]) -> None:
        self._plan = plan
        self.__doc__ = plan.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Arguments, Result]: ...
    @overload
    def __get__(
        self, client: AsyncClient, owner: type
    ) -> Callable[Arguments, Coroutine[Any, Any, Result]]: ...
    def __get__(self, client: Client | AsyncClient, owner: type) -> Callable[Arguments, Any]:
        """Returns the method, bound to the client."""

        @wraps(self._plan)
        def method(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
            return client.run(self._plan(*args, **kwargs))

        return method


class Opened(Generic[Arguments]):
    """Makes a request and gives its answer before the body has come, in a context."""

    def __init__(self, call: Callable[Arguments, Call]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(
        self, client: Client, owner: type
    ) -> Callable[Arguments, AbstractContextManager[httpx2.Response]]: ...
    @overload
    def __get__(
        self, client: AsyncClient, owner: type
    ) -> Callable[Arguments, AbstractAsyncContextManager[httpx2.Response]]: ...
    def __get__(self, client: Client | AsyncClient, owner: type) -> Callable[Arguments, Any]:
        """Returns the method, bound to the client."""

        @wraps(self._call)
        def method(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
            return client.open(self._call(*args, **kwargs))

        return method


class Events(Generic[Arguments]):
    """Makes a request and yields the JSON of each server-sent event it is answered with."""

    def __init__(self, call: Callable[Arguments, Call]) -> None:
        self._call = call
        self.__doc__ = call.__doc__

    @overload
    def __get__(self, client: Client, owner: type) -> Callable[Arguments, Iterator[Document]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[Arguments, AsyncIterator[Document]]: ...
    def __get__(self, client: Client | AsyncClient, owner: type) -> Callable[Arguments, Any]:
        """Returns the method, bound to the client."""

        @wraps(self._call)
        def method(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Any:
            return client.events(self._call(*args, **kwargs))

        return method
