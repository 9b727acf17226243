"""Marks stand at the sub-words of two spans, around which a long text is cut."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths
from metaprime.data.subwords import Pieces, Subwords
from metaprime.tasks.spans.audit import AUDIT
from metaprime.tasks.spans.encoding import SPAN_MARKS, encode, first_kept
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.task import Text
from metaprime.types import MetaprimeError

CONFIG = SpansConfig()
IDS = {"false": 0, "true": 1}


def marks(text: Text, example: Example, whole: bool = True) -> list[int]:
    return [int(mark) for mark in encode([example], text, IDS, whole)[0].windows[0].more[SPAN_MARKS]]


def test_marks_stand_at_the_sub_words_of_the_spans(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text(Subwords(toy_tokenizer), Lengths(64))
    example = Example(("mali bonodabi mali dabi", "0:2", "1:3"), "true")
    own = toy_tokenizer(example.words[0].split(), is_split_into_words=True)
    numbers = own.word_ids(0)
    expected = [0 if word is None else (word < 2) + 2 * (1 <= word < 3) for word in numbers]
    (window,) = encode([example], text, IDS, True)[0].windows
    assert list(window.input_ids) == own["input_ids"]
    assert marks(text, example) == expected
    first = marks(text, example, whole=False)
    assert [place for place, mark in enumerate(first) if mark & 1] == [numbers.index(0)]
    assert [place for place, mark in enumerate(first) if mark & 2] == [numbers.index(1)]


def test_a_long_text_is_cut_around_its_spans(
    toy_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["mali", *["bono"] * 30, "dabi", *["bono"] * 30]
    example = Example((" ".join(words), "29:30", "31:32"), "false", "wsc/train.jsonl:line 3")
    text = Text(Subwords(toy_tokenizer), Lengths(12))
    (row,) = encode([example], text, IDS, True)
    assert len(row.windows[0].input_ids) == 12
    kept = row.windows[0].more[SPAN_MARKS]
    assert {1, 2} <= set(kept)
    assert "1 of 1 texts are longer than data.max_length = 12" in caplog.text
    far = Example((" ".join(words), "0:1", "60:61"), "false", "wsc/train.jsonl:line 4")
    with pytest.raises(
        MetaprimeError, match=r"line 4: the two spans do not fit in data\.max_length = 12 sub-words; raise"
    ):
        encode([far], text, IDS, True)
    kinds = [(finding.severity, finding.kind) for finding in AUDIT.lengths("wsc/train", [far, example], text)]
    assert kinds[:2] == [("fatal", "spans apart"), ("problem", "texts cut")]


def test_a_span_without_a_sub_word_is_named(
    toy_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Text(Subwords(toy_tokenizer), Lengths(64))
    example = Example(("mali \u200b bono", "0:1", "1:2"), "true", "wsc/train.jsonl:line 5")
    # BERT's tokenizers leave such marks out; the toy has a sub-word for what it does not know.
    pieces = Pieces(np.array([7, 8], np.int32), np.array([1, 0, 1], np.int32))
    monkeypatch.setattr(Subwords, "of", lambda self, examples: [pieces])
    with pytest.raises(MetaprimeError, match=r"line 5: the tokenizer has no sub-word for the words of a span"):
        encode([example], text, IDS, True)


@pytest.mark.parametrize(
    ("places", "total", "room", "first"),
    [
        ([(0, 1), (2, 3)], 20, 8, 0),
        ([(8, 9), (10, 12)], 20, 8, 6),
        ([(18, 19), (19, 20)], 20, 8, 12),
        ([(1, 2), (3, 4)], 5, 8, 0),
        ([(0, 1), (9, 10)], 20, 8, None),
    ],
)
def test_what_is_kept_has_the_spans_in_its_middle(
    places: list[tuple[int, int]], total: int, room: int, first: int | None
) -> None:
    assert first_kept(places, total, room) == first
