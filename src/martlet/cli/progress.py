"""Progress on a terminal; plain lines, or nothing, elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from martlet.cli.output import note
from martlet.terminal import plain

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class DeployProgress:
    """Shows a deploy on stderr: a bar while the code is sent, then the lines of the build's log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = _bars()
            self._task = self._bars.add_task(f"deploying {self._name}", total=None)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def uploaded(self, sent: int, total: int) -> None:
        """Is told how many bytes were sent."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=f"sending {self._name}", completed=sent, total=total)
            if sent >= total:
                self._wait()

    def line(self, line: dict[str, Any]) -> None:
        """Is told a line of the build's log."""
        text = plain(f"  {line['message']}")
        if self._bars is None:
            note(text)
            return
        self._bars.console.print(text, style="dim", markup=False, highlight=False)
        self._wait()

    def _wait(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=f"building {self._name}", completed=0, total=None)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
