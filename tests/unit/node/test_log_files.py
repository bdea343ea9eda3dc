import stat
from pathlib import Path

import pytest

from martlet.errors import FunctionNotFound
from martlet.model import LogLine
from martlet.node.log_files import BLOCK, LogFiles


def document(message: str) -> bytes:
    line = LogLine(
        time=1.0, function="f", revision=1, instance="i", request_id=None, stream="stdout", message=message
    )
    return line.model_dump_json().encode() + b"\n"


def messages(files: LogFiles, function: str = "f") -> list[str]:
    return [line.message for line in files.newest_first(function)]


def test_lines_are_read_newest_first(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    files.append("f", [document("1"), document("2")])
    files.append("f", [document("3")])
    assert messages(files) == ["3", "2", "1"]
    assert messages(files, "unknown") == []


def test_lines_that_lie_across_blocks_are_read_whole(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 22)
    long = ["é" * 4000 + str(number) for number in range(3 * BLOCK // 8000 + 5)]
    files.append("f", [document(message) for message in long])
    assert messages(files) == long[::-1]


def test_the_older_file_goes_when_the_newer_is_full(tmp_path: Path) -> None:
    size = len(document("000"))
    files = LogFiles(tmp_path, "lane-0", 10 * size)
    for number in range(35):
        files.append("f", [document(f"{number:03}")])
    assert messages(files) == [f"{number:03}" for number in range(34, 19, -1)]
    assert sorted(path.stat().st_size for path in (tmp_path / "f").iterdir()) == [5 * size, 10 * size]


def test_one_large_batch_keeps_the_bound(tmp_path: Path) -> None:
    size = len(document("000"))
    files = LogFiles(tmp_path, "lane-0", 10 * size)
    files.append("f", [document(f"{number:03}") for number in range(35)])
    assert messages(files) == [f"{number:03}" for number in range(34, 19, -1)]


def test_lanes_and_functions_are_apart(tmp_path: Path) -> None:
    zero, one = LogFiles(tmp_path, "lane-0", 1 << 20), LogFiles(tmp_path, "lane-1", 1 << 20)
    zero.append("f", [document("of lane 0")])
    one.append("f", [document("of lane 1")])
    zero.append("g", [document("of g")])
    zero.delete("f")
    zero.delete("f")
    assert messages(zero) == []
    assert messages(one) == ["of lane 1"]
    assert messages(zero, "g") == ["of g"]
    one.delete("f")
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_half_a_line_of_a_killed_lane_spoils_nothing(tmp_path: Path) -> None:
    LogFiles(tmp_path, "lane-0", 1 << 20).append("f", [document("whole")])
    with (tmp_path / "f/lane-0.jsonl").open("ab") as file:
        file.write(document("never finished")[:20])
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    files.append("f", [document("next")])
    files.append("f", [document("after")])
    assert messages(files) == ["after", "next", "whole"]


def test_a_function_deleted_and_made_anew_starts_anew(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    files.append("f", [document("old")])
    files.delete("f")
    files.append("f", [document("new")])
    assert messages(files) == ["new"]


def test_nobody_else_may_look(tmp_path: Path) -> None:
    LogFiles(tmp_path, "lane-0", 1 << 20).append("f", [document("private")])
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["..", "../f", "f/g", "", "F", "f\n"])
def test_names_that_could_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    with pytest.raises(FunctionNotFound):
        files.append(name, [document("x")])
    with pytest.raises(FunctionNotFound):
        files.delete(name)
