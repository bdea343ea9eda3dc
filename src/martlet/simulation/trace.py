"""A trace of invocations: a folder with three CSV files, in the format of the Azure Functions trace of 2019.

    *_inv.csv    HashFunction, HashApp, minute_1, minute_2 …: invocations in each minute
    *_run.csv    HashFunction, Average: what an invocation takes, ms
    *_mem.csv    HashApp, AverageAllocatedMb: what an instance takes, MB

Further columns are ignored. Invocations are read row by row, so that a trace may be larger than the memory.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from martlet.errors import Invalid

FUNCTION, APP, RUN_TIME, MEMORY = "HashFunction", "HashApp", "Average", "AverageAllocatedMb"
_MINUTE = re.compile(r"minute_[1-9][0-9]*")
_MOST_IN_A_MINUTE = 10**9


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a trace says of one function.

    Attributes:
        run_time: what an invocation takes, seconds.
        memory: what an instance takes, MB.
        minutes: the minutes with invocations, from 0 on, with how many there were.
    """

    run_time: float
    memory: float
    minutes: list[tuple[int, int]]


class Trace:
    """A trace on disk. The small files are read when it is made, the large one by `traffic`.

    Attributes:
        minutes: how long the trace is.

    Raises:
        Invalid: a file is missing or malformed; the message names the file, the line and the column.
    """

    def __init__(self, folder: Path) -> None:
        self._run_times = _numbers(_file(folder, "_run.csv"), FUNCTION, RUN_TIME)
        self._memory = _numbers(_file(folder, "_mem.csv"), APP, MEMORY)
        self._path = _file(folder, "_inv.csv")
        with _Table(self._path) as table:
            names = [name for name in table.header if _MINUTE.fullmatch(name)]
            self.minutes = len(names)
            self._first = table.column("minute_1")
            expected = [f"minute_{n + 1}" for n in range(self.minutes)]
            if table.header[self._first : self._first + self.minutes] != expected:
                raise table.fault(
                    f"minute_1 to minute_{self.minutes} are to follow one another in the header"
                )

    def traffic(self) -> Iterator[Traffic]:
        """Yields what there was of each function. Raises `Invalid` as the constructor does."""
        first, last = self._first, self._first + self.minutes
        with _Table(self._path) as table:
            function_column, app_column = table.column(FUNCTION), table.column(APP)
            for row in table.rows():
                run_time = self._run_times.get(row[function_column])
                if run_time is None:
                    raise table.fault(
                        f"{row[function_column]!r} has no row in the file of run times", FUNCTION
                    )
                memory = self._memory.get(row[app_column])
                if memory is None:
                    raise table.fault(f"{row[app_column]!r} has no row in the file of memory", APP)
                minutes = []
                for minute, text in enumerate(row[first:last]):
                    if text != "0":
                        count = _count(text)
                        if count is None:
                            problem = f"{text!r} is not a number of invocations"
                            raise table.fault(problem, table.header[first + minute])
                        minutes.append((minute, count))
                yield Traffic(run_time / 1e3, memory, minutes)


class _Table:
    """A CSV file with a header, read row by row; knows at which line it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open(newline="", encoding="utf-8-sig")
        except OSError as error:
            raise Invalid(f"{path}: {error.strerror}") from None
        self._reader = csv.reader(self._file, strict=True)
        try:
            self.header: list[str] = next(self._rows(), [])
        except Invalid:
            self._file.close()
            raise

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def column(self, name: str) -> int:
        """Returns where a column is. Raises `Invalid`."""
        if self.header.count(name) != 1:
            raise self.fault("the header is to have one column of this name", name)
        return self.header.index(name)

    def rows(self) -> Iterator[Sequence[str]]:
        """Yields the rows below the header. Raises `Invalid`."""
        for row in self._rows():
            if len(row) != len(self.header):
                raise self.fault(f"the row has {len(row)} columns, the header {len(self.header)}")
            yield row

    def fault(self, problem: str, column: str | None = None) -> Invalid:
        """Returns the error for the line that was read last."""
        place = f"{self._path}:{max(1, self._reader.line_num)}: {f'column {column}: ' if column else ''}"
        return Invalid(place + problem, field=column)

    def _rows(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise self.fault(str(error)) from None
        except UnicodeDecodeError:
            raise self.fault("this is no UTF-8") from None
        except OSError as error:
            raise Invalid(f"{self._path}: {error.strerror}") from None


def _file(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}"))
    if len(found) != 1:
        raise Invalid(f"{folder}: there are {len(found)} files *{ending}; a trace has one")
    return found[0]


def _numbers(path: Path, key: str, value: str) -> dict[str, float]:
    """Reads one column as numbers, by the text in another."""
    numbers: dict[str, float] = {}
    with _Table(path) as table:
        keys, values = table.column(key), table.column(value)
        for row in table.rows():
            if row[keys] in numbers:
                raise table.fault(f"{row[keys]!r} had a row before", key)
            number = _number(row[values])
            if number is None:
                raise table.fault(f"{row[values]!r} is not a number from 0", value)
            numbers[row[keys]] = number
    return numbers


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def _count(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    count = int(text)
    return count if count <= _MOST_IN_A_MINUTE else None
