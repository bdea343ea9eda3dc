"""What a template is kept under: whatever decides what it is changes that."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from martlet.images.image import Image
from martlet.microvm.base import Base
from martlet.microvm.kernel import Kernel
from martlet.microvm.templates import digest
from martlet.runtimes import Runtime
from martlet.runtimes.description import read_description
from martlet.runtimes.runtime import SHIPPED
from martlet.sandbox.inside import Task

MONITOR = "#!/bin/sh\necho version {}\n"


@dataclass(frozen=True)
class Parts:
    """What a template is made from."""

    program: Path
    kernel: Kernel
    base: Base
    task: Task
    network: str | None = None
    accelerated: bool = False

    @property
    def digest(self) -> str:
        program = str(self.program)
        return digest(
            program, None, self.kernel, self.base, self.task, self.network, accelerated=self.accelerated
        )

    @property
    def shim(self) -> Path:
        return self.base.runtime.folder / "shim"


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    program, carried = tmp_path / "monitor", tmp_path / "program"
    program.write_text(MONITOR.format(1))
    program.chmod(0o755)
    carried.write_text("machine code")
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "shim").write_text("a shim")
    description = read_description(SHIPPED / "http/runtime.toml")
    runtime = Runtime(name="http", names=("http",), version="", folder=folder, description=description)
    return Parts(
        program,
        Kernel("6.1", tmp_path, tmp_path),
        Base(image("a"), runtime, (carried,)),
        Task("module", "/folder", None, own_kernel=False),
    )


def image(digest: str) -> Image:
    return Image(
        digest=digest * 64, source="Debian", size=0, created=0.0, name="plain", root=Path("/nowhere")
    )


def another_monitor(parts: Parts) -> Parts:
    parts.program.write_text(MONITOR.format(2))
    return parts


def another_shim(parts: Parts) -> Parts:
    parts.shim.write_text("another")
    return parts


def another_program(parts: Parts) -> Parts:
    parts.base.programs[0].write_text("other code")
    return parts


CHANGES: dict[str, Callable[[Parts], Parts]] = {
    "kernel": lambda parts: replace(parts, kernel=replace(parts.kernel, version="6.12")),
    "root": lambda parts: replace(parts, base=replace(parts.base, image=image("b"))),
    "program": another_program,
    "task": lambda parts: replace(parts, task=replace(parts.task, module="other")),
    "monitor": another_monitor,
    "network": lambda parts: replace(parts, network="nowhere"),
    "acceleration": lambda parts: replace(parts, accelerated=True),
    "runtime": another_shim,
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_one_of_what_it_is_made_from_makes_another_template(parts: Parts, what: str):
    before = parts.digest

    assert parts.digest == before
    assert CHANGES[what](parts).digest != before
