"""Real corpora, where they stand beside the checkout: every language is read, checked and drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from metaprime.data.episodes import EpisodeSampler, EpisodeShape
from metaprime.data.rows import Lengths
from metaprime.data.sources import languages
from metaprime.data.subwords import Subwords
from metaprime.preflight.corpus import check_data
from metaprime.tasks.tagging.labels import LabelSet, Rules
from metaprime.tasks.tagging.reading import read
from metaprime.tasks.tagging.task import TaggingConfig, build
from metaprime.tasks.tagging.windows import answered
from metaprime.tasks.task import Text

DATA = Path(__file__).parents[2] / "shared" / "data"
CORPORA = ("wikiann", "wikineural", "masakhaner2")
LABELS = LabelSet(("PER", "ORG", "LOC"), {"MISC": "O", "DATE": "O"})

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real data in {DATA}"),
]


def test_there_are_twenty_three_languages() -> None:
    assert sum(len(languages(f"parquet:{DATA / corpus}")) for corpus in CORPORA) == 23


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_language_is_checked_and_none_of_it_is_fatal(corpus: str) -> None:
    report = check_data(f"parquet:{DATA / corpus}")
    assert len(report.splits) == 3 * len(languages(f"parquet:{DATA / corpus}"))
    assert not [finding for finding in report.findings if finding.severity == "fatal"]
    assert "duplicates" in {finding.kind for finding in report.findings}


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_language_makes_episodes(corpus: str, toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Short windows, so that long sentences are split too; every word that has sub-words is answered for once."""
    source = f"parquet:{DATA / corpus}"
    config = TaggingConfig(label_map={"MISC": "O", "DATE": "O"})
    task = build(config, Text(Subwords(toy_tokenizer, tmp_path), Lengths(32)))
    pools = {name: task.encode(read(source, name, "train", Rules(LABELS))) for name in languages(source)}
    assert any(len(row.windows) > 1 for rows in pools.values() for row in rows)
    for rows in pools.values():
        owned = [len(window.words) for row in rows for window in row.windows]
        assert sum(owned) == sum(len(answered(row)) for row in rows)
    for name, rows in pools.items():
        episodes = EpisodeSampler({name: rows}, EpisodeShape(2, 4, 3, 8, 0.0), 0)
        batch = episodes.meta_batch(0, (0, 1), task.collate)
        assert batch.languages == (name, name)
        assert len(batch.support) == 3
        assert (batch.query["labels"] >= 0).any()
