import resource
import stat
from pathlib import Path

import pytest

from martlet.errors import FunctionNotFound
from martlet.model import LogLine
from martlet.node.log_files import BLOCK, PIECES, LogFiles


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


def test_the_oldest_piece_goes_when_the_newest_is_full(tmp_path: Path) -> None:
    size = len(document("000"))
    files = LogFiles(tmp_path, "lane-0", 2 * size * PIECES)
    dropped = []
    files.on_dropped = lambda *piece: dropped.append(piece)
    for number in range(2 * PIECES + 5):
        files.append("f", [document(f"{number:03}")])
    assert messages(files) == [f"{number:03}" for number in range(2 * PIECES + 4, 5, -1)]
    assert sorted(path.stat().st_size for path in (tmp_path / "f").iterdir()) == [size, *[2 * size] * 15]
    assert dropped == [("f", 1, 2 * size), ("f", 2, 2 * size), ("f", 3, 2 * size)]


def test_one_large_batch_keeps_the_bound(tmp_path: Path) -> None:
    size = len(document("000"))
    files = LogFiles(tmp_path, "lane-0", 2 * size * PIECES)
    files.append("f", [document(f"{number:03}") for number in range(2 * PIECES + 5)])
    assert messages(files) == [f"{number:03}" for number in range(2 * PIECES + 4, 5, -1)]


def test_pieces_keep_their_numbers_and_what_they_hold(tmp_path: Path) -> None:
    size = len(document("000"))
    files = LogFiles(tmp_path, "lane-0", 2 * size * PIECES)
    assert files.pieces("f") == {}
    files.append("f", [document(f"{number:03}") for number in range(5)])
    assert files.pieces("f") == {1: 2 * size, 2: 2 * size, 3: size}
    growing = files.piece("f", 3)
    assert growing == document("004")
    files = LogFiles(tmp_path, "lane-0", 2 * size * PIECES)  # in the next life of the lane
    files.append("f", [document("005"), document("006")])
    assert files.pieces("f") == {1: 2 * size, 2: 2 * size, 3: 2 * size, 4: size}
    assert files.piece("f", 3) == growing + document("005")
    assert files.piece("f", 1) == document("000") + document("001")


def test_a_line_that_is_not_whole_is_not_of_its_piece(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    files.append("f", [document("whole")])
    with (tmp_path / "f/lane-0.jsonl").open("ab") as file:
        file.write(document("never finished")[:20])
    assert files.piece("f", 1) == document("whole")


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


def test_the_functions_that_a_lane_has_lines_of_are_known(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    assert files.functions() == []
    files.append("f", [document("1")])
    LogFiles(tmp_path, "lane-1", 1 << 20).append("g", [document("2")])
    assert files.functions() == ["f"]


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


def test_a_line_that_the_disk_had_no_room_for_does_not_spoil_the_next(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "lane-0", 1 << 20)
    files.append("f", [document("before")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(document("before")) + 10, hard))
    try:
        for _ in range(2):  # with room for a part of it, and then for nothing
            with pytest.raises(OSError):
                files.append("f", [document("too long for what is left")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    files.append("f", [document("after")])
    assert messages(files) == ["after", "before"]
