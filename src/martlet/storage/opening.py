"""The one place where a store is chosen and opened."""

from __future__ import annotations

from pathlib import Path

from martlet.storage.sqlite import SqliteStore
from martlet.storage.store import Store
from martlet.store_address import EtcdAddress, StoreAddress

DATABASE = "martlet.db"


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
