"""What the contract suites share."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.contract.python_shim import Shim, Zygote, program


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def shim(zygote: Zygote, tmp_path: Path) -> Iterator[Shim]:
    """A forked cell."""
    shim = Shim(tmp_path, zygote.fork)
    yield shim
    shim.close()


@pytest.fixture(params=[False, True], ids=["--socket", "--listen-fd"])
def program_shim(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shim]:
    """A cell that was started anew."""
    shim = Shim(tmp_path, partial(program, by_descriptor=request.param))
    yield shim
    shim.close()
