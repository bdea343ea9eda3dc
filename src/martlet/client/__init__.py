"""The Python client of a platform: `Client`, and `AsyncClient` whose methods are awaited.

from martlet.client import Client

with Client() as martlet:
    martlet.deploy("hello", "hello.py")
    print(martlet.invoke("hello", json={"name": "Ada"}).json())
"""

from martlet.client.async_client import AsyncClient
from martlet.client.client import Client
from martlet.client.errors import ApiError, ClientError, Unreachable

__all__ = ["ApiError", "AsyncClient", "Client", "ClientError", "Unreachable"]
