"""`metrics.jsonl`: what was written is read again, without the line that a kill has cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaprime.runs.log import METRICS_FILE, MetricsLog, read_metrics
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
