"""Languages by their use: what their corpus lacks is refused by the key that asks for it, before it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.build.roles import HELD_OUT, PRIMED_ON, TARGETS, check_corpus
from metaprime.config.sections import DataConfig
from metaprime.types import MetaprimeError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three languages; the second has no training split."""
    for name in ("aa/train", "aa/validation", "aa/test", "bb/validation", "bb/test", "cc/train"):
        file = tmp_path / f"{name}.conll"
        file.parent.mkdir(exist_ok=True)
        file.write_text("Ada B-PER\n", "utf-8")
    return tmp_path


def data(corpus: Path, **keys: object) -> DataConfig:
    return DataConfig.model_validate({"source": f"conll:{corpus}", "languages": ["cc"], **keys})


def refusal(role: object, of: DataConfig, trains: bool = True) -> str:
    with pytest.raises(MetaprimeError) as error:
        check_corpus(role, of, trains)  # type: ignore[arg-type]
    return str(error.value)


def test_what_is_there_passes_unread(corpus: Path) -> None:
    (corpus / "aa" / "train.conll").write_bytes(b"\xff no text")
    of = data(corpus, validation_languages=["aa"], target_languages=["bb"])
    check_corpus(PRIMED_ON, of)
    check_corpus(HELD_OUT, of)
    # Without training no training split is needed.
    check_corpus(TARGETS, of, trains=False)
    assert "bb/train.conll: no such split" in refusal(TARGETS, of)


def test_a_refusal_begins_with_the_key(corpus: Path) -> None:
    of = {"target_languages": ["aa"]}
    assert refusal(PRIMED_ON, data(corpus, source="conll:gone")).startswith("data.source: gone: no such folder")
    assert refusal(TARGETS, data(corpus, target_source="conll:gone", **of)).startswith("data.target_source: gone")
    assert refusal(PRIMED_ON, data(corpus, languages=["zz"])).startswith(f"data.languages: {corpus / 'zz'}: no such")
    assert refusal(TARGETS, data(corpus, test_split="final", **of)).startswith("data.test_split: ")
    assert refusal(HELD_OUT, data(corpus, validation_languages=["bb"])).startswith("data.train_split: ")
    empty = refusal(PRIMED_ON, data(corpus, languages=[]))
    assert empty.startswith("data.languages is empty: name at least one language to draw episodes from")
    assert empty.endswith("has aa, bb, cc")


def test_an_empty_file_is_refused_as_reading_it_would(corpus: Path) -> None:
    (corpus / "aa" / "train.conll").write_bytes(b"")
    assert refusal(PRIMED_ON, data(corpus, languages=["aa"])) == (
        f"{corpus / 'aa' / 'train.conll'}: no sentence in it; give a file with at least one sentence"
    )
