"""The one place where a store, and a broker of queues, are chosen and opened."""

from __future__ import annotations

from pathlib import Path

from martlet.queue_address import QueueAddress, RedisAddress
from martlet.storage.broker import Broker
from martlet.storage.queue import QueueError
from martlet.storage.sqlite import SqliteStore
from martlet.storage.sqlite_broker import SqliteBroker
from martlet.storage.store import Store
from martlet.store_address import EtcdAddress, StoreAddress

DATABASE = "martlet.db"
QUEUES = "queue.db"


async def open_store(address: StoreAddress, folder: Path) -> Store:
    """Opens the store of a platform.

    Args:
        address: ``system.store``.
        folder: the data folder, where SQLite has its file.

    Raises:
        StoreError: it is out of reach, or refuses us.
    """
    if isinstance(address, EtcdAddress):
        from martlet.storage.etcd.store import EtcdStore  # an HTTP client, which lanes do without otherwise

        return await EtcdStore.open(address)
    return await SqliteStore.open(folder / DATABASE)


async def open_broker(address: QueueAddress, folder: Path, max_deliveries: int) -> Broker:
    """Opens the queues of a platform.

    Args:
        address: ``system.queue``.
        folder: the data folder, where SQLite has its file.
        max_deliveries: how often a message is delivered before it is a dead letter.

    Raises:
        QueueError: they cannot be opened. A Redis that is out of reach says so when it is asked.
    """
    if isinstance(address, RedisAddress):
        try:
            from martlet.storage.redis_broker import RedisBroker  # a library that only clusters have
        except ImportError as error:
            raise QueueError(
                "queues in Redis take its library: install martlet with the extra cluster, martlet[cluster]"
            ) from error
        return RedisBroker(address.connection(), max_deliveries)
    return await SqliteBroker.open(folder / QUEUES, max_deliveries)
