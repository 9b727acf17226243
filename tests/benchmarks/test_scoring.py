"""Seconds of scoring: the sentences that are asked for, each scored packed and padded with equal predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import real
import scoring

from metaprime import packing


def test_sentences_are_those_of_all_languages_in_turn(toy_bert: Path) -> None:
    pools = real.read("synthetic:", ["qaa", "qab"], str(toy_bert)).pools
    first, second = pools["qaa"][:2], pools["qab"][:2]
    assert scoring.first_of(pools, 3) == [first[0], second[0], first[1]]
    short = {"qaa": pools["qaa"][:1], "qab": pools["qab"][:3]}
    assert len(scoring.first_of(short, 100)) == 4


def test_packed_and_padded_predict_the_same(
    toy_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packing, "NEARLY_FULL", 2)
    command = ["scoring.py", "--languages=qaa,qab", "--sentences=12", "--rounds=1"]
    monkeypatch.setattr("sys.argv", [*command, f"--encoder={toy_bert}", f"--out={tmp_path}"])
    scoring.main()
    page = (tmp_path / "scoring.md").read_text("utf-8")
    assert page.strip() == capsys.readouterr().out.strip()
    assert "12 sentences of qaa, qab" in page
    assert "the same for 100.0 %" in page
    for row in ("packed", "padded", "packed / padded"):
        assert f"| {row} | " in page


def test_an_encoder_that_cannot_pack_is_refused(toy_encoder: Callable[[str], Path]) -> None:
    sentences = real.read("synthetic:", ["qaa"], str(toy_encoder("deberta-v2")))
    with pytest.raises(SystemExit, match="batches of this encoder stay padded: "):
        scoring.compare(sentences, 4, 1)
