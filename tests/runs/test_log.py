"""`metrics.jsonl`: what was written is read again, without the line that a kill has cut off; lines of progress."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from metaprime.runs import log as log_module
from metaprime.runs.log import METRICS_FILE, Display, MetricsLog, duration, read_metrics
from metaprime.types import MetaprimeError

LINES = [{"step": 0, "validation_f1": 25.0}, {"step": 1, "query_loss": 1.5}, {"step": 2, "query_loss": 1.25}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    log = MetricsLog(tmp_path / METRICS_FILE, -1)
    for line in LINES:
        log.write(line)
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    assert read_metrics(folder) == LINES


@pytest.mark.parametrize("cut", ['{"step": 3, "query_lo', '{"query_loss": 1.0}', "3", ""])
def test_a_line_that_is_not_whole_is_left_out(folder: Path, cut: str) -> None:
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(cut)
    assert read_metrics(folder) == LINES
    MetricsLog(folder / METRICS_FILE, 1)
    assert [json.loads(text) for text in (folder / METRICS_FILE).read_text("utf-8").splitlines()] == LINES[:2]


def test_a_process_that_is_not_the_first_writes_nothing(folder: Path) -> None:
    before = (folder / METRICS_FILE).read_bytes()
    MetricsLog(folder / METRICS_FILE, 0, shown=False).write({"step": 1})
    assert (folder / METRICS_FILE).read_bytes() == before


@pytest.mark.parametrize("content", [None, b"\xff\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / METRICS_FILE).write_bytes(content)
    with pytest.raises(MetaprimeError, match=r"metrics\.jsonl cannot be read .*: run the command of the suite again"):
        read_metrics(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the display sees, in seconds; nobody waits."""
    now = [0.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    return now


def shown(display: Display, clock: list[float], times: Iterable[tuple[int, float]]) -> None:
    """Shows that so many units are done at these times, without the thread of reminders."""
    for done, now in times:
        clock[0] = now
        display.show(done, "loss 0.70")


def test_lines_stand_at_each_tenth_however_units_are_counted(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown(Display("cells", 252, True, unit="cell"), clock, [(done, done / 100) for done in range(14, 253, 14)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "cells 28/252 loss 0.70 (0.01 s/cell, 2 s left)"
    assert lines[-1] == "cells 252/252 loss 0.70 (0.01 s/cell, 0 s left)"


def test_a_slow_run_has_a_line_every_quarter_of_a_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown(Display("priming", 1000, True), clock, [(done, 10.0 * done) for done in range(1, 7)])
    assert capsys.readouterr().err.splitlines() == [
        "priming 2/1000 loss 0.70 (10 s/step, 2 h 46 min left)",
        "priming 4/1000 loss 0.70 (10 s/step, 2 h 46 min left)",
        "priming 6/1000 loss 0.70 (10 s/step, 2 h 46 min left)",
    ]


def test_steps_before_a_resume_do_not_make_it_look_fast(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    shown(Display("priming", 100, True), clock, [(41, 2.0), (50, 20.0)])
    assert capsys.readouterr().err.splitlines()[-1] == "priming 50/100 loss 0.70 (2 s/step, 2 min left)"


def test_a_long_cell_is_said_to_be_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("cells", 3, True, unit="cell", every=0.05) as display:
        deadline = time.monotonic() + 10
        err = ""
        while err.count("\n") < 2 and time.monotonic() < deadline:
            err += capsys.readouterr().err
    assert err.splitlines()[:2] == ["cells 0/3", "cells 0/3"]
    assert display.ended.is_set()


def test_a_display_that_is_not_shown_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("cells", 1, False, every=0.01) as display:
        time.sleep(0.05)
        display.show(1, "")
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 89, 90, 3599, 4000)] == [
        "0 s",
        "89 s",
        "2 min",
        "1 h 0 min",
        "1 h 7 min",
    ]
