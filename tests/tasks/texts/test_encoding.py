"""Windows of texts and pairs are those of the tokenizer itself, cut ones too."""

from __future__ import annotations

import itertools
import logging

import pytest
from transformers import PreTrainedTokenizerFast

from metaprime.data.rows import Example, Lengths, collate
from metaprime.data.subwords import Subwords
from metaprime.tasks.task import Text
from metaprime.tasks.texts.encoding import encode, longest_first
from metaprime.types import MetaprimeError


def values(one: Example) -> list[tuple[int, dict[str, tuple[float, ...]]]]:
    return [({"bad": 0, "good": 1}[one.gold], {})]


def example(*texts: str, gold: str = "good") -> Example:
    return Example(texts, gold, "en/train.jsonl:line 1")


def text(tokenizer: PreTrainedTokenizerFast, longest: int = 16) -> Text:
    return Text(Subwords(tokenizer), Lengths(longest))


@pytest.mark.parametrize("longest", [7, 9, 12, 64])
def test_a_pair_is_what_the_tokenizer_makes_of_it(toy_tokenizer: PreTrainedTokenizerFast, longest: int) -> None:
    for first, second in itertools.product(["mali", "mali bono dabi mali bono", "bono mali dabi"], repeat=2):
        theirs = toy_tokenizer(
            first, second, truncation="longest_first", max_length=longest, return_token_type_ids=True
        )
        (window,) = encode([example(first, second)], text(toy_tokenizer, longest), values)[0].windows
        assert list(window.input_ids) == theirs["input_ids"]
        if window.more:
            assert list(window.more["token_type_ids"]) == theirs["token_type_ids"]


def test_a_text_is_cut_at_its_end_and_told(
    toy_tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    whole = "mali bono dabi mali bono dabi"
    with caplog.at_level(logging.WARNING):
        (row,) = encode([example(whole, gold="bad")], text(toy_tokenizer, 5), values)
    assert list(row.windows[0].input_ids) == toy_tokenizer(whole, truncation=True, max_length=5)["input_ids"]
    assert row.windows[0].labels == (0,)
    assert "1 of 1 texts are longer than data.max_length = 5 sub-words and were cut" in caplog.text


def test_numbers_that_are_kept_are_those_of_tokenizers(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    for first, second, room in itertools.product(range(1, 9), range(1, 9), range(2, 12)):
        theirs = toy_tokenizer(
            ["mali"] * first,
            ["mali"] * second,
            is_split_into_words=True,
            add_special_tokens=False,
            truncation="longest_first",
            max_length=room,
        )
        sides = theirs.sequence_ids(0)
        each = len(toy_tokenizer("mali", add_special_tokens=False)["input_ids"])
        assert (sides.count(0), sides.count(1)) == longest_first(first * each, second * each, room)


def test_types_reach_the_batch(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    one, pair = encode([example("mali"), example("mali", "bono dabi")], text(toy_tokenizer), values)
    assert "token_type_ids" not in collate([one], 0)
    batch = collate([one, pair], 0)
    assert batch["labels"].tolist() == [[1], [1]]
    if "token_type_ids" in toy_tokenizer.model_input_names:
        assert batch["token_type_ids"].shape == batch["input_ids"].shape
        assert not batch["token_type_ids"][0].any()


def test_no_room_is_refused(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        MetaprimeError, match=r"data\.max_length = 4 leaves no room for two texts beside 3 special tokens"
    ):
        encode([example("mali", "bono")], text(toy_tokenizer, 4), values)
