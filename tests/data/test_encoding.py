"""Encoding: labels on first sub-words, what is cut is said, padding, and the shuffled control."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import CanineTokenizer, PreTrainedTokenizerFast

from metaprime.data import encoding
from metaprime.data.encoding import collate, encode, entities_lost, shuffled_tags
from metaprime.data.labels import LabelSet
from metaprime.types import IGNORE, MetaprimeError, Row, Sentence

LABELS = LabelSet(("PER", "LOC"))
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "ada", "nap", "##s", "in", "ber", "##lin", ".")
SENTENCE = Sentence(("Ada", "naps", "in", "Berlin", "."), ("B-PER", "O", "O", "B-LOC", "O"), "x:1")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    pieces = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    pieces.normalizer = BertNormalizer()
    pieces.pre_tokenizer = BertPreTokenizer()
    pieces.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


def test_the_first_sub_word_carries_the_label(tokenizer: PreTrainedTokenizerFast) -> None:
    # [CLS] ada nap ##s in ber ##lin . [SEP]
    row = Row(
        input_ids=(2, 4, 5, 6, 7, 8, 9, 10, 3),
        starts=(1, 2, 4, 5, 7),
        labels=(IGNORE, 1, 0, IGNORE, 0, 3, IGNORE, 0, IGNORE),
        sentence=SENTENCE,
    )
    assert encode([SENTENCE], tokenizer, LABELS, 9) == [row]


def test_what_is_cut_is_marked_and_logged(tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cut, whole = encode([SENTENCE, Sentence(("Ada",), ("B-PER",))], tokenizer, LABELS, 6)
    assert cut.input_ids == (2, 4, 5, 6, 7, 3)
    assert cut.starts == (1, 2, 4, -1, -1)
    assert cut.labels == (IGNORE, 1, 0, IGNORE, 0, IGNORE)
    assert cut.sentence is SENTENCE
    assert whole.starts == (1,)
    assert [entities_lost(row) for row in (cut, whole)] == [1, 0]
    assert caplog.messages == [
        "x: 1 of 2 sentences are longer than data.max_length = 6 sub-words and were cut; 1 entities have a word that was "
        "cut or has no sub-word and cannot be found; raise data.max_length to keep what was cut"
    ]


def test_nothing_cut_is_no_news(tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        encode([SENTENCE], tokenizer, LABELS, 9)
    assert caplog.messages == []


def test_a_word_without_sub_words_starts_nowhere(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (row,) = encode([Sentence(("Ada", "\u200b", "in"), ("B-PER", "I-PER", "O"))], tokenizer, LABELS, 9)
    assert row.starts == (1, -1, 2)
    assert row.labels == (IGNORE, 1, 0, IGNORE)
    assert entities_lost(row) == 1
    assert [message[:18] for message in caplog.messages] == ["text: 0 of 1 sente"]
    assert "1 entities have a word" in caplog.text


@pytest.mark.parametrize(
    ("tags", "starts", "lost"),
    [
        (("B-PER", "I-PER", "O"), (1, 2, -1), 0),
        (("B-PER", "I-PER", "B-PER"), (1, -1, -1), 2),
        (("B-PER", "B-PER", "O"), (1, -1, -1), 1),
        (("O", "B-LOC", "I-PER"), (1, 2, -1), 1),
        (("O", "O", "O"), (-1, -1, -1), 0),
    ],
)
def test_an_entity_is_lost_with_any_of_its_words(tags: tuple[str, ...], starts: tuple[int, ...], lost: int) -> None:
    assert entities_lost(Row((), starts, (), Sentence(("a", "b", "c"), tags))) == lost


def test_chunks_change_nothing(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = [Sentence(SENTENCE.words[:n], SENTENCE.tags[:n]) for n in (1, 5, 2, 4, 3)]
    whole = encode(sentences, tokenizer, LABELS, 9)
    monkeypatch.setattr(encoding, "CHUNK", 2)
    assert encode(sentences, tokenizer, LABELS, 9) == whole
    assert [row.sentence for row in whole] == sentences
    assert encode([], tokenizer, LABELS, 9) == []


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"CanineTokenizer is a slow tokenizer.*choose an encoder\.name"):
        encode([SENTENCE], CanineTokenizer(), LABELS, 9)


def test_a_length_without_room_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(MetaprimeError, match=r"data\.max_length = 2 leaves no room .* 2 special tokens; raise it"):
        encode([SENTENCE], tokenizer, LABELS, 2)


def test_a_tag_outside_the_labels_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(MetaprimeError, match="'B-LOC' is none of"):
        encode([SENTENCE], tokenizer, LabelSet(("PER",)), 9)


def test_collate_pads_to_the_longest(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = encode([Sentence(("Ada",), ("B-PER",)), Sentence(("in", "Berlin"), ("O", "B-LOC"))], tokenizer, LABELS, 9)
    batch = collate(rows, pad_id=7)
    expected = {
        "input_ids": [[2, 4, 3, 7, 7], [2, 7, 8, 9, 3]],
        "attention_mask": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        "labels": [[IGNORE, 1, IGNORE, IGNORE, IGNORE], [IGNORE, 0, 3, IGNORE, IGNORE]],
    }
    assert {name: tensor.tolist() for name, tensor in batch.items()} == expected
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_shuffling_keeps_each_sentences_words_and_tag_counts() -> None:
    long = Sentence(tuple(map(str, range(40))), ("B-PER",) * 3 + ("O",) * 37, "x:9")
    one, two = shuffled_tags([long, long], 3, "xx")
    for control in (one, two):
        assert (control.words, control.origin) == (long.words, long.origin)
        assert Counter(control.tags) == Counter(long.tags)
    assert len({one.tags, two.tags, long.tags}) == 3
    assert shuffled_tags([long, long], 3, "xx") == [one, two]
    assert shuffled_tags([long], 4, "xx") != [one]
    assert shuffled_tags([long], 3, "yy") != [one]  # or all languages would be shuffled alike
