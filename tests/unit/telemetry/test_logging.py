import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from martlet.telemetry.logging import configure

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def events(capture: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    printed = capture.readouterr()
    assert printed.out == ""
    return [json.loads(line) for line in printed.err.splitlines()]


def test_events_are_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    structlog.contextvars.bind_contextvars(process="lane-0")
    log.info("lane_ready", port=8000)
    (event,) = events(capsys)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "lane_ready", "level": "info", "port": 8000, "process": "lane-0"}


def test_events_are_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "text")
    log.info("lane_ready", port=8000)
    line = capsys.readouterr().err
    assert "lane_ready" in line
    assert "port=8000" in line


def test_what_is_no_terminal_gets_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "auto")
    log.info("lane_ready")
    assert [event["event"] for event in events(capsys)] == ["lane_ready"]


def test_the_level_is_the_least_one_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("WARNING", "json")
    log.info("too quiet")
    log.warning("heard")
    logging.getLogger("library").info("too quiet")
    logging.getLogger("library").error("heard, too")
    assert [event["event"] for event in events(capsys)] == ["heard", "heard, too"]


def test_libraries_are_logged_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    logging.getLogger("library").warning("%d are %s", 2, "late", extra={"who": "trains"})
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("this is old", DeprecationWarning, stacklevel=1)
    first, second = events(capsys)
    assert (first["event"], first["level"], first["who"]) == ("2 are late", "warning", "trains")
    assert "this is old" in second["event"]


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_traceback_tells_where_but_no_values(capsys: pytest.CaptureFixture[str], style: str) -> None:
    configure("INFO", style)
    key = "the secret key"
    try:
        raise ValueError("no " + key.split()[0])
    except ValueError:
        log.exception("failed")
    printed = capsys.readouterr().err
    assert "ValueError" in printed
    assert "no the" in printed
    assert "secret" not in printed.replace('key = "the secret key"', "")


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    configure("ERROR", "text")
    configure("INFO", "json")
    log.info("once")
    assert [event["event"] for event in events(capsys)] == ["once"]
