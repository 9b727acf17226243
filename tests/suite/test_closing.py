"""How a demonstration ends: its files, and commands that work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metaprime.suite import closing as module
from metaprime.suite.closing import EXAMPLE, closing

LINES = [
    {"words": ["Ada", "sleeps"], "gold": ["B-PER", "O"], "predicted": ["B-PER", "B-LOC"]},
    {"words": ["No"], "gold": ["O"], "predicted": ["O"]},
]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished demonstration as far as its end reads it; the report is tested by itself."""
    for arm in ("none", "meta"):
        cell = tmp_path / "transfer" / arm / "qai-pfeiffer-k50-s0"
        cell.mkdir(parents=True)
        lines = LINES if arm == "meta" else LINES[::-1]
        (cell / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    monkeypatch.setattr(module, "report", lambda folder: [folder / "report.html"])
    return tmp_path


def results(*arms: str) -> dict[str, Any]:
    path = "transfer/{}/qai-pfeiffer-k50-s0/record.json"
    return {"records": [{"arm": arm, "language": "qai", "path": path.format(arm)} for arm in arms]}


def test_it_says_where_all_is_and_what_to_type(output: Path) -> None:
    (output / "primed").mkdir()
    lines = closing(results("none", "meta"), output, "meta")
    text = "\n".join(lines)
    for path in ("primed", EXAMPLE, "report.html"):
        assert str(output / path) in text
    assert f"  metaprime predict {output / 'transfer/meta/qai-pfeiffer-k50-s0'} 'TEXT'" in lines
    table = (output / EXAMPLE).read_text(encoding="utf-8")
    assert table == "word\tgold\tpredicted\nAda\tB-PER\tB-PER\nsleeps\tO\tB-LOC\n"


def test_without_its_arm_another_tags_the_example(output: Path) -> None:
    text = "\n".join(closing(results("none"), output, "meta"))
    assert "primed encoder" not in text
    assert (output / EXAMPLE).read_text(encoding="utf-8").splitlines()[1:] == ["No\tO\tO"]
