"""The embedded encoder's vocabulary: the same from the same text, in every process."""

from __future__ import annotations

from pathlib import Path

import pytest

from metaprime.build.pretrain import SPECIAL, make_tokenizer, pretrain
from metaprime.config.sections import PretrainConfig
from metaprime.data.readers import synthetic
from metaprime.types import MetaprimeError


def test_pieces_are_numbered_by_name() -> None:
    texts = synthetic.read("", "qaa", "validation") + synthetic.read("", "qaf", "validation")
    tokenizer = make_tokenizer(texts, PretrainConfig(vocabulary=300))
    pieces = sorted(tokenizer.get_vocab(), key=lambda piece: tokenizer.get_vocab()[piece])
    assert tuple(pieces[: len(SPECIAL)]) == SPECIAL
    assert pieces[len(SPECIAL) :] == sorted(pieces[len(SPECIAL) :])
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(pieces)))


def test_words_come_apart_into_known_pieces() -> None:
    texts = synthetic.read("", "qaa", "validation")
    tokenizer = make_tokenizer(texts, PretrainConfig(vocabulary=300))
    for sentence in texts[:50]:
        ids = tokenizer(" ".join(sentence.words))["input_ids"]
        assert ids[0] == tokenizer.cls_token_id
        assert ids[-1] == tokenizer.sep_token_id
        assert tokenizer.unk_token_id not in ids
        joined = "".join(tokenizer.convert_ids_to_tokens(ids[1:-1])).replace("##", "")
        assert joined == "".join(sentence.words)


def test_a_folder_that_is_not_its_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "thesis.txt").write_text("years of work", encoding="utf-8")
    config = PretrainConfig(layers=1, hidden=8, heads=2, vocabulary=300, steps=1, batch=2, length=16)
    with pytest.raises(MetaprimeError, match="holds another encoder or other files"):
        pretrain(config, "synthetic:", tmp_path / "base", lambda *progress: None)
    assert (tmp_path / "base" / "thesis.txt").read_text("utf-8") == "years of work"
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["thesis.txt"]


def test_its_own_is_found_and_anothers_refused(tmp_path: Path) -> None:
    config = PretrainConfig(layers=1, hidden=8, heads=2, vocabulary=300, steps=1, batch=2, length=16)
    steps: list[int] = []
    folder = pretrain(config, "synthetic:", tmp_path / "base", lambda done, *rest: steps.append(done))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert steps == [1]
    assert pretrain(config, "synthetic:", tmp_path / "base", lambda done, *rest: steps.append(done)) == folder
    assert steps == [1]
    for other, source in ((config.model_copy(update={"seed": 1}), "synthetic:"), (config, "synthetic:7")):
        with pytest.raises(MetaprimeError, match="holds another encoder or other files"):
            pretrain(other, source, tmp_path / "base", lambda *progress: None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
