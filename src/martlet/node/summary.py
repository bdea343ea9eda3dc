"""What a lane is and holds, in short: what control and the other machines know of it."""

from __future__ import annotations

from typing import Any

from martlet.node.node import Node
from martlet.storage.registry import RegistryView


def summary(node: Node, view: RegistryView) -> dict[str, Any]:
    """Returns that of a lane, which goes by what ``view`` knows."""
    pools = node.pools.items()
    held = [pool for _, pool in pools if pool.held]
    return {
        "status": "ok",
        "lane": node.lane,
        "instances": len(node.instances),
        "capacity": node.room.capacity,
        "cells": len(node.stocks),
        "memory": sum(pool.held * pool.config.memory for pool in held),
        "cpu": sum(pool.held * (pool.config.cpu_limit or 0) for pool in held),
        "warm": {pool.revision.id: (pool.held, pool.free) for pool in held},
        "calls": {name: calls for name, pool in pools if (calls := pool.demand)},
        "forwarded": {name: sent for name, pool in pools if (sent := pool.forwarded)},
        "asked": node.count_asked(),
        "divided": max(view.divided.values(), default=0),
    }
