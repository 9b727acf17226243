"""Targets: numbers within the range; what is none is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.data.reading import UNSTATED, settle
from metaprime.tasks.regression.reading import examine, target_of
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.types import MetaprimeError

CONFIG = RegressionConfig(range=(0, 5))


def read(folder: Path, *rows: dict[str, Any], config: RegressionConfig = CONFIG, known: bool = True) -> Any:
    (folder / "en").mkdir(parents=True)
    (folder / "en" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    return examine(f"jsonl:{folder}", "en", "train", config, known, UNSTATED)


def test_targets_are_numbers_within_the_range(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": value} for value in (2, "3.5", 5.0, "high", None, True, 7)]
    found = read(tmp_path, *rows)
    assert [one.gold for one in found.sentences] == [2, 3.5, 5]
    assert [problem.kind for problem in found.problems] == [
        "not a number",
        "missing value",
        "not a number",
        "out of range",
    ]
    with pytest.raises(
        MetaprimeError, match=r"train\.jsonl:line 4: label is 'high', which is no number; write one such"
    ):
        settle(found, "repair")
    with pytest.raises(MetaprimeError, match=r"line 7: label is 7, outside task\.range \[0\.0, 5\.0\]"):
        settle(found, "error")
    assert len(settle(found, "drop")) == 3
    assert len(read(tmp_path / "any", *rows, known=False).sentences) == 4


@pytest.mark.parametrize("value", [True, "", "a", "nan", "inf", None, [1], 10**400])
def test_what_is_no_number(value: object) -> None:
    assert target_of(value) is None
