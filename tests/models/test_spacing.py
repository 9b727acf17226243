"""Words that come one by one are cut as in running text, whatever a tokenizer marks spaces with."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, GemmaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from metaprime.data.readers import synthetic
from metaprime.models.encoder import load_encoder, load_tokenizer, save_encoder
from metaprime.models.spacing import spaced

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
LETTERS = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
"""Runs of letters, single digits and runs of signs, each with the space before it."""


def sentences() -> list[str]:
    """Sentences of invented words, with some that are cut in parts before sub-words are looked up."""
    found = [" ".join(sentence.words) for sentence in synthetic.read("", "qaa", "train")[:150]]
    return [f"{line} don't 1990 co-op ." for line in found]


def trained(model: Any, trainer: Any, pre: Any, norm: Any = None) -> PreTrainedTokenizerBase:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre
    if norm:
        backend.normalizer = norm
    backend.train_from_iterator(sentences(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **NAMES)


def byte_pairs(pre: Any, norm: Any = None) -> PreTrainedTokenizerBase:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    return trained(models.BPE(unk_token="[UNK]"), trainer, pre, norm)


def behind_a_split(option: bool) -> PreTrainedTokenizerBase:
    """Words are split before bytes are looked up; the option then puts a space before each part of a word."""
    steps = [
        pre_tokenizers.Split(Regex(LETTERS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer = byte_pairs(pre_tokenizers.Sequence(steps))
    tokenizer.backend_tokenizer.pre_tokenizer[1].add_prefix_space = option
    return tokenizer


def unigrams(pre: Any) -> PreTrainedTokenizerBase:
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="[UNK]")
    return trained(models.Unigram(), trainer, pre)


def word_pieces() -> PreTrainedTokenizerBase:
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL)
    return trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer())


def marks() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges of words that begin with a mark, as sentencepiece makes them."""
    backend = byte_pairs(pre_tokenizers.Metaspace(prepend_scheme="always")).backend_tokenizer
    state = json.loads(backend.to_str())["model"]
    return state["vocab"], [tuple(merge) for merge in state["merges"]]


def gemma() -> PreTrainedTokenizerBase:
    """Spaces are replaced by marks before anything is split."""
    vocab, merges = marks()
    return GemmaTokenizer(vocab=vocab, merges=merges, model_max_length=128, **NAMES)


def as_file(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_max_length=128, **NAMES)


Make = Callable[[], PreTrainedTokenizerBase]
SPLIT = pre_tokenizers.Split
GLUED: dict[str, Make] = {
    "bytes": lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "bytes behind a split": lambda: behind_a_split(False),
    "bytes behind a split, with the option that breaks it": lambda: behind_a_split(True),
    "bytes of stripped text": lambda: byte_pairs(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    ),
    "marks": lambda: unigrams(pre_tokenizers.Metaspace(prepend_scheme="never")),
    "marks in a sequence": lambda: unigrams(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
        )
    ),
    "spaces with the next word": lambda: byte_pairs(SPLIT(" ", "merged_with_next")),
    "spaces of their own": lambda: byte_pairs(SPLIT(" ", "isolated")),
    "marks for spaces, a class": gemma,
    "marks for spaces, a file": lambda: as_file(gemma()),
}
RIGHT: dict[str, Make] = {
    "bytes": lambda: byte_pairs(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "marks": lambda: unigrams(pre_tokenizers.Metaspace(prepend_scheme="always")),
    "marks of the first": lambda: unigrams(pre_tokenizers.Metaspace(prepend_scheme="first")),
    "word pieces": word_pieces,
    "spaces removed": lambda: byte_pairs(SPLIT(" ", "removed")),
}


def one_by_one(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> tuple[list[int], int]:
    """The sub-words of words that are given one by one, and the number of those of the first."""
    cut = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    return cut["input_ids"], cut.word_ids().count(0)


def as_in_text(tokenizer: PreTrainedTokenizerBase, plain: PreTrainedTokenizerBase) -> list[bool]:
    """Whether each sentence ends as plain running text does, behind its first word."""
    found = []
    for line in sentences()[:20]:
        ids, first = one_by_one(tokenizer, line.split(" "))
        found.append(plain(line, add_special_tokens=False)["input_ids"][-len(ids[first:]) :] == ids[first:])
    return found


def saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", GLUED)
def test_words_that_lack_their_space_get_it_here_and_where_it_is_saved(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(GLUED[name](), tmp_path / "stock")
    plain = AutoTokenizer.from_pretrained(folder)
    if name.endswith("breaks it"):
        # The option is not how the encoder met its text.
        # Where the option is on, the text itself is cut as it never was in training.
        plain = behind_a_split(False)
    assert not all(as_in_text(AutoTokenizer.from_pretrained(folder, add_prefix_space=True), plain))
    with caplog.at_level(logging.WARNING):
        loaded = load_tokenizer(str(folder))
    assert all(as_in_text(loaded, plain))
    (record,) = caplog.records
    assert "cut otherwise than in running text, for example '" in record.getMessage()
    assert "encoder.spacing: none" in record.getMessage()

    # Saved, it is the same to those who have only transformers, and nothing is left to say.
    caplog.clear()
    again = AutoTokenizer.from_pretrained(saved(loaded, tmp_path / "saved"))
    assert all(as_in_text(again, plain))
    assert load_tokenizer(str(tmp_path / "saved")).backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert not caplog.records
    assert again.special_tokens_map == plain.special_tokens_map
    assert again.model_max_length == plain.model_max_length


@pytest.mark.parametrize("name", RIGHT)
def test_a_tokenizer_that_has_them_stays_as_it_is(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(RIGHT[name](), tmp_path)
    before = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    loaded = load_tokenizer(str(folder))
    assert loaded.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()
    assert all(as_in_text(loaded, before))
    assert not caplog.records


def test_it_is_left_alone_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(GLUED["bytes"](), tmp_path)
    before = AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    for spacing in ("none", None):
        assert load_tokenizer(str(folder), spacing=spacing).backend_tokenizer.to_str() == before
    assert not caplog.records


def test_a_space_is_put_before_each_word_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stock = byte_pairs(SPLIT(" ", "merged_with_previous"))
    loaded = load_tokenizer(str(saved(stock, tmp_path)), spacing="space")
    assert loaded.convert_ids_to_tokens(one_by_one(loaded, ["da", "da"])[0])[0].startswith(" ")
    assert not caplog.records


def test_what_a_space_does_not_mend_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The space belongs to the word before it."""
    folder = saved(byte_pairs(SPLIT(" ", "merged_with_previous")), tmp_path)
    before = AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()
    loaded = load_tokenizer(str(folder))
    assert loaded.backend_tokenizer.to_str() == before
    (record,) = caplog.records
    assert (
        "a space before each does not mend it. encoder.spacing: none takes the tokenizer as it is"
        in record.getMessage()
    )
    assert spaced(loaded, "auto").right is False


def test_an_alphabet_of_its_own_is_compared_in_its_own_words() -> None:
    """No word of ours has a piece in this vocabulary."""
    words = ["".join(chr(0x10D0 + (3 * place + letter) % 33) for letter in range(4)) for place in range(40)]
    backend = Tokenizer(
        models.WordLevel({"[UNK]": 0} | {f"▁{w}": i for i, w in enumerate(words, 1)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert 0 in one_by_one(tokenizer, words)[0]
    assert spaced(tokenizer, "auto").notice
    assert 0 not in one_by_one(tokenizer, words)[0]


def test_an_encoder_is_saved_with_it(changed_toy: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed_toy("modernbert", vocab_size=600)
    saved(stock := GLUED["bytes"](), folder)
    encoder = load_encoder(str(folder))
    save_encoder(encoder.module, encoder.tokenizer, tmp_path / "primed")
    assert all(as_in_text(AutoTokenizer.from_pretrained(tmp_path / "primed"), stock))
    kept = load_encoder(str(folder), spacing="none")
    assert not all(as_in_text(kept.tokenizer, stock))
