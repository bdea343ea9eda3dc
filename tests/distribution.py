"""Which worker runs which tests."""

from xdist.scheduler import LoadFileScheduling

TOGETHER = ("tests/cluster/", "tests/runtimes/")
"""Folders that take longest, and whose tests share what is dear to start: machines, and a platform with its builds. One
waits for leases, and the other compiles: at the same time they use a machine better than two of either."""


def together(nodeid: str) -> str | None:
    """Returns the folder that a test must not be run apart from, if there is one."""
    return next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)


class Distribution(LoadFileScheduling):
    """Hands out files in their order, each to one worker; and all files of `TOGETHER` to one."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid) or super()._split_scope(nodeid)
