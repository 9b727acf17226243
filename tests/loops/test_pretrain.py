"""The embedded encoder's vocabulary: the same from the same text, in every process."""

from __future__ import annotations

from metaprime.config import PretrainConfig
from metaprime.data import synthetic
from metaprime.loops.pretrain import SPECIAL, make_tokenizer


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
