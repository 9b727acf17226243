"""Tables: what a row says of several runs."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from metaprime.reports.wording import (
    beside_trivial,
    interval_text,
    limits,
    markdown,
    p_text,
    signed,
    terminal,
    transfer_table,
)
from metaprime.stats.intervals import Interval
from metaprime.tasks import task_kind
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.tagging.task import TAGGING


def record(f1: float, language: str = "qaa", method: str = "lora", lr: float = 0.01, seed: int = 0) -> dict[str, Any]:
    return {
        "cell": {"language": language, "method": method, "shots": 50, "priming_seed": seed, "transfer_seed": 0},
        "scores": {"lenient": {"overall": {"f1": f1}}, "strict": {"overall": {"f1": f1 - 10}}},
        "training": {"lr": lr},
    }


def test_markdown() -> None:
    assert markdown(["a", "b"], [["x", "1"], ["y", "2"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n| y | 2 |\n"


def test_terminal_shows_every_cell() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(terminal("scores", ["language", "F1"], [["qaa", "70.0"]]))
    for part in ("scores", "language", "F1", "qaa", "70.0"):
        assert part in text.getvalue()


HEADER = ("arm", "pfeiffer", "HT", "sentence passes", "10^12 FLOPs", "seconds")
ARMS = ("meta-priming", "multi-task", "shuffled labels")


@pytest.mark.parametrize("width", [120, 80, 60])
def test_names_are_whole_in_a_narrow_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = io.StringIO()
    rows = [[arm, "39.9 ± 3.4", "38.1 ± 2.0", "29,120", "12.3", "1,234"] for arm in ARMS]
    Console(file=text).print(terminal("scores", HEADER, rows))
    lines = text.getvalue().splitlines()
    assert all(any(arm in line for line in lines) for arm in ARMS)
    assert max(map(len, lines)) <= width
    for word in ("39.9", "29,120", "1,234", "sentence", "FLOPs", "seconds"):
        assert word in text.getvalue()


def test_nothing_is_cut_where_there_is_no_room_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = io.StringIO()
    Console(file=text).print(terminal("", HEADER[:3], [["scaled_parallel-bottleneck64", "39.9", "38.1"]]))
    lines = text.getvalue().splitlines()
    assert "…" not in text.getvalue()
    assert "scaled_parallel-bottleneck64" in "".join(line.split()[0] for line in lines if line.strip())


def test_one_run_has_no_spread_and_no_interval() -> None:
    one = Interval(70.04, math.nan, math.nan, math.nan, 1)
    assert (interval_text(one), signed(one.mean), limits(one, sign=True)) == ("70.0", "+70.0", "")


def test_several_have_both() -> None:
    several = Interval(-1.25, 0.5, -2.0, 0.5, 3)
    assert (interval_text(several), signed(several.mean)) == ("-1.2 ± 0.5", "−1.2")
    assert limits(several, sign=True) == "[−2.0, +0.5]"


def test_a_row_for_each_language_and_method() -> None:
    records = [record(70), record(72, lr=0.003), record(50, method="head"), record(60, language="qab")]
    header, rows = transfer_table(records, TAGGING.listed)
    assert header == ["language", "method", "K", "rate", "lenient F1", "strict F1", "runs"]
    assert rows == [
        ["qaa", "head", "50", "0.01", "50.0", "40.0", "1"],
        ["qaa", "lora", "50", "0.003/0.01", "71.0 ± 1.4", "61.0 ± 1.4", "2"],
        ["qab", "lora", "50", "0.01", "60.0", "50.0", "1"],
    ]
    assert all(len(row) == len(header) for row in rows)
    assert transfer_table([], TAGGING.listed) == (header, [])


def test_numbers_as_text() -> None:
    none = Interval(math.nan, math.nan, math.nan, math.nan, 1)
    some = Interval(-1.26, 0.5, -2.0, 0.5, 3)
    assert (interval_text(none), limits(none), signed(math.nan)) == ("–", "", "–")
    assert (interval_text(some), limits(some), limits(some, sign=True)) == ("-1.3 ± 0.5", "[-2.0, 0.5]", "[−2.0, +0.5]")
    assert [p_text(p) for p in (0.0, 0.00099, 0.05, 1.0, math.nan)] == ["< 0.001", "< 0.001", "0.050", "1.000", "–"]


def of_texts(
    language: str, score: float, floor: float, name: str = "accuracy", beside: str = "majority"
) -> dict[str, Any]:
    return {"cell": {"language": language}, "scores": {name: score, beside: {name: floor}}}


def test_runs_that_are_no_better_or_worse_than_a_constant_answer_are_counted() -> None:
    kind = task_kind(ClassificationConfig(labels=("bad", "good")))
    scores = [("qaa", 60.9, 60), ("qaa", 59.0, 60), ("qao", 71.2, 70), ("qao", 20, 70)]
    records = [of_texts(*one) for one in scores]
    assert beside_trivial(records, kind, ["meta", "none", "meta", "none"]) == [
        "Answering the most frequent class always gives accuracy qaa 60.0, qao 70.0. "
        "2 of 4 runs collapsed, to one answer or within one point of that: meta 1; none 1."
    ]
    assert beside_trivial(records[2:], kind, ["meta", "none"])[0].endswith(
        "qao 70.0. No run has one answer alone or is within one point of that."
    )
    always = {**records[2], "scores": {**records[2]["scores"], "accuracy": 30.0, "constant": True}}
    assert "1 of 1 runs collapsed, to one answer or within" in beside_trivial([always], kind, ["meta"])[0]
    errors = task_kind(RegressionConfig(metric="mse"))
    squared = [of_texts("en", score, 2, "mse", "mean") for score in (2.01, 1.9, 2.5)]
    assert beside_trivial(squared, errors, ["lora"] * 3)[0].endswith(
        "1 of 3 runs collapsed, to one answer or within 1 % of that: lora 1."
    )


def test_nothing_is_said_without_such_an_answer() -> None:
    kind = task_kind(ClassificationConfig(labels=("bad", "good")))
    assert beside_trivial([record(70)], TAGGING, ["lora"]) == []
    assert beside_trivial([], kind, []) == []
    older = {"cell": {"language": "qaa"}, "scores": {"accuracy": 70, "majority": {"class": "bad"}}}
    assert beside_trivial([older], kind, ["lora"]) == []
