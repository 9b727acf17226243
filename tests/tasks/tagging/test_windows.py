"""Encoding: labels on first sub-words, what is cut is said, padding, and the shuffled control."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths, Row, Window
from metaprime.data.subwords import Subwords
from metaprime.rng import stream
from metaprime.tasks.tagging import windows as module
from metaprime.tasks.tagging.labels import LabelSet
from metaprime.tasks.tagging.windows import encode, entities_lost, shuffled_tags
from metaprime.types import IGNORE, MetaprimeError

LABELS = LabelSet(("PER", "LOC"))
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "ada", "nap", "##s", "in", "ber", "##lin", ".")
SENTENCE = Example(("Ada", "naps", "in", "Berlin", "."), ("B-PER", "O", "O", "B-LOC", "O"), "x:1")


@pytest.fixture(scope="module")
def subwords() -> Subwords:
    pieces = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    pieces.normalizer = BertNormalizer()
    pieces.pre_tokenizer = BertPreTokenizer()
    pieces.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return Subwords(PreTrainedTokenizerFast(tokenizer_object=pieces, **names))


def windows(*each: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]) -> tuple[Window, ...]:
    return tuple(Window(*one) for one in each)


def test_the_first_sub_word_carries_the_label(subwords: Subwords) -> None:
    # [CLS] ada nap ##s in ber ##lin . [SEP]
    row = Row(
        windows(
            (
                (2, 4, 5, 6, 7, 8, 9, 10, 3),
                (0, 1, 2, 3, 4),
                (1, 2, 4, 5, 7),
                (IGNORE, 1, 0, IGNORE, 0, 3, IGNORE, 0, IGNORE),
            )
        ),
        SENTENCE,
    )
    assert encode([SENTENCE], subwords, LABELS, Lengths(9)) == [row]


def test_a_sentence_that_fits_is_the_one_window_that_is_cut_from_it(subwords: Subwords) -> None:
    words, tags = ("ada", "naps", "in", "Berlin", "."), ("B-PER", "O", "B-LOC", "I-LOC")
    sentences = [Example(words[:n], tags[:n]) for n in (1, 2, 3, 4)] * 2
    for row, pieces in zip(encode(sentences, subwords, LABELS, Lengths(20)), subwords.of(sentences), strict=True):
        spans = [(0, len(row.example.words))]
        assert row.windows == module._windows(row.example, pieces, spans, subwords, LABELS)


def test_a_long_sentence_is_read_in_overlapping_windows(subwords: Subwords, caplog: pytest.LogCaptureFixture) -> None:
    """Ada naps in | in Berlin . : each word is labelled once, where it has most around it, of equals in the first."""
    with caplog.at_level(logging.INFO):
        (row,) = encode([SENTENCE], subwords, LABELS, Lengths(6, overlap=0.5))
    _ = IGNORE
    assert row.windows == windows(
        ((2, 4, 5, 6, 7, 3), (0, 1, 2), (1, 2, 4), (_, 1, 0, _, 0, _)),
        ((2, 7, 8, 9, 10, 3), (3, 4), (2, 4), (_, _, 3, _, 0, _)),
    )
    assert entities_lost(row) == 0
    assert caplog.messages == [
        "x: 1 of 1 sentences are longer than data.max_length = 6 sub-words and were read in windows"
    ]
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_truncating_loses_what_is_behind_and_says_so(subwords: Subwords, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        cut, whole = encode([SENTENCE, Example(("Ada",), ("B-PER",))], subwords, LABELS, Lengths(6, cut=True))
    assert cut.windows == windows(((2, 4, 5, 6, 7, 3), (0, 1, 2), (1, 2, 4), (IGNORE, 1, 0, IGNORE, 0, IGNORE)))
    assert cut.example is SENTENCE
    assert [entities_lost(row) for row in (cut, whole)] == [1, 0]
    assert caplog.messages == [
        "x: 1 entities have a word that was cut away or has no sub-word and cannot be found; data.long: windows cuts "
        "nothing away",
        "x: 1 of 2 sentences are longer than data.max_length = 6 sub-words and were cut",
    ]


def test_a_sentence_that_fits_is_no_news(subwords: Subwords, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        encode([SENTENCE], subwords, LABELS, Lengths(9))
    assert caplog.messages == []


def test_a_word_longer_than_a_window_keeps_its_beginning(subwords: Subwords) -> None:
    (row,) = encode([Example(("in", "Berlinlinlinlin", "Ada"), ("O", "B-LOC", "B-PER"))], subwords, LABELS, Lengths(5))
    assert entities_lost(row) == 0
    assert [window.input_ids for window in row.windows if 1 in window.words] == [(2, 8, 9, 9, 3)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("longest", [5, 6, 9, 17, 40])
def test_windows_lose_nothing_repeat_enough_and_answer_from_the_middle(
    subwords: Subwords, longest: int, overlap: float
) -> None:
    """Random sentences against what windows promise, each promise checked from the windows' ids alone."""
    draw = stream(0, "windows", longest, str(overlap))
    room = longest - 2
    for _ in range(60):
        words = tuple(draw.choice(["ada", "naps", "berlin", "in", "\u200b", "berlinlinlin"], size=draw.integers(1, 60)))
        tags = tuple(draw.choice(LABELS.tags, size=len(words)))
        sentence = Example(words, tags)
        (row,) = encode([sentence], subwords, LABELS, Lengths(longest, overlap))
        pieces = [
            subwords.tokenizer([w], is_split_into_words=True, add_special_tokens=False)["input_ids"] for w in words
        ]
        pieces = [piece[:room] for piece in pieces] if sum(map(len, pieces)) > room else pieces
        flat = [piece for word in pieces for piece in word]
        starts = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])[:-1]
        inner = [list(window.input_ids[1:-1]) for window in row.windows]
        assert all(window.input_ids[0] == 2 and window.input_ids[-1] == 3 for window in row.windows)
        assert all(len(ids) <= room for ids in inner)
        assert sorted(word for window in row.windows for word in window.words) == [
            word for word, piece in enumerate(pieces) if piece
        ]
        places = []
        for window, ids in zip(row.windows, inner, strict=True):
            offset = int(starts[window.words[0]]) - (window.starts[0] - 1) if window.words else None
            if offset is not None:
                assert flat[offset : offset + len(ids)] == ids
                assert [int(starts[word]) - offset + 1 for word in window.words] == list(window.starts)
                places.append((offset, offset + len(ids), window.words))
            labelled = {
                start: LABELS.index(tags[word]) for word, start in zip(window.words, window.starts, strict=True)
            }
            assert list(window.labels) == [labelled.get(p, IGNORE) for p in range(len(window.input_ids))]
        for _, _, owned in places:
            for word in owned:
                reach = {
                    own: min(starts[word] - (first or -np.inf), (end if end < len(flat) else np.inf) - 1 - starts[word])
                    for first, end, own in places
                    if first <= starts[word] < end
                }
                assert reach[owned] == max(reach.values())


def test_a_word_without_sub_words_is_in_no_window(subwords: Subwords, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (row,) = encode([Example(("Ada", "\u200b", "in"), ("B-PER", "I-PER", "O"))], subwords, LABELS, Lengths(9))
    assert row.windows == windows(((2, 4, 7, 3), (0, 2), (1, 2), (IGNORE, 1, 0, IGNORE)))
    assert entities_lost(row) == 1
    assert caplog.messages == ["text: 1 entities have a word that was cut away or has no sub-word and cannot be found"]


@pytest.mark.parametrize(
    ("tags", "found", "lost"),
    [
        (("B-PER", "I-PER", "O"), (0, 1), 0),
        (("B-PER", "I-PER", "B-PER"), (0,), 2),
        (("B-PER", "B-PER", "O"), (0,), 1),
        (("O", "B-LOC", "I-PER"), (0, 1), 1),
        (("O", "O", "O"), (), 0),
    ],
)
def test_an_entity_is_lost_with_any_of_its_words(tags: tuple[str, ...], found: tuple[int, ...], lost: int) -> None:
    row = Row(tuple(Window((), (word,), (1,), ()) for word in found), Example(("a", "b", "c"), tags))
    assert entities_lost(row) == lost


def test_a_length_without_room_is_refused(subwords: Subwords) -> None:
    with pytest.raises(MetaprimeError, match=r"data\.max_length = 2 leaves no room .* 2 special tokens; raise it"):
        encode([SENTENCE], subwords, LABELS, Lengths(2))


def test_a_tag_outside_the_labels_is_refused(subwords: Subwords) -> None:
    with pytest.raises(MetaprimeError, match="'B-LOC' is not one of"):
        encode([SENTENCE], subwords, LabelSet(("PER",)), Lengths(9))


def test_shuffling_keeps_each_sentences_words_and_tag_counts() -> None:
    long = Example(tuple(map(str, range(40))), ("B-PER",) * 3 + ("O",) * 37, "x:9")
    one, two = shuffled_tags([long, long], 3, "xx")
    for control in (one, two):
        assert (control.words, control.origin) == (long.words, long.origin)
        assert Counter(control.gold) == Counter(long.gold)
    assert len({one.gold, two.gold, long.gold}) == 3
    assert shuffled_tags([long, long], 3, "xx") == [one, two]
    assert shuffled_tags([long], 4, "xx") != [one]
    assert shuffled_tags([long], 3, "yy") != [one]  # or all languages would be shuffled alike
