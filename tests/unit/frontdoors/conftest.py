"""Front doors are doors of the management API: the same fixtures."""

from tests.unit.control.conftest import client, plain_log, platform

__all__ = ["client", "plain_log", "platform"]
