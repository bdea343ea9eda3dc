import errno
import os
import resource
from pathlib import Path

from martlet.sandbox import rlimits
from tests.alone import alone


def test_limits_cannot_be_raised_again():
    def limits() -> list[tuple[int, int]]:
        rlimits.apply(open_files=64, file_bytes=4096, processes=None)
        kinds = (
            resource.RLIMIT_NOFILE,
            resource.RLIMIT_FSIZE,
            resource.RLIMIT_CORE,
            resource.RLIMIT_MSGQUEUE,
        )
        return [resource.getrlimit(kind) for kind in kinds]

    assert alone(limits) == [[64, 64], [4096, 4096], [1, 1], [0, 0]]


def test_a_limit_above_what_the_host_allows_is_the_hosts():
    def limit() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
        rlimits.apply(open_files=1000, file_bytes=1, processes=None)
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert alone(limit) == [50, 50]


def test_a_file_does_not_grow_past_its_limit(tmp_path: Path):
    def write() -> int | None:
        rlimits.apply(open_files=1024, file_bytes=4096, processes=None)
        try:
            (tmp_path / "file").write_bytes(b"x" * 8192)
        except OSError as error:
            return error.errno
        return None

    assert alone(write) == errno.EFBIG
    assert os.path.getsize(tmp_path / "file") == 4096
