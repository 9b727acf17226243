"""Sub-words out of the tokenizer or out of the cache: the same, and the second time without the tokenizer."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import CanineTokenizer, PreTrainedTokenizerFast

from metaprime.data import subwords
from metaprime.data.readers import synthetic
from metaprime.data.rows import Example
from metaprime.data.subwords import Pieces, Subwords, cache_folder
from metaprime.types import MetaprimeError

SENTENCES = synthetic.read("", "qaa", "train")[:80]
SENTENCES[3] = Example(("\u200b", "a", "\u200b"), ("O",) * 3)  # words without sub-words, also at the ends


def plain(pieces: Sequence[Pieces]) -> list[tuple[list[int], list[int]]]:
    return [(one.ids.tolist(), one.lengths.tolist()) for one in pieces]


def refuse(self: Subwords, sentences: Sequence[Example]) -> list[Pieces]:
    raise AssertionError("tokenised")


def test_they_are_the_tokenizers_own_word_by_word(toy_tokenizer: PreTrainedTokenizerFast) -> None:
    made = Subwords(toy_tokenizer)
    assert (made.before, made.after) == ((toy_tokenizer.cls_token_id,), (toy_tokenizer.sep_token_id,))
    for sentence, pieces in zip(SENTENCES, made.of(SENTENCES), strict=True):
        each = [toy_tokenizer.encode(word, add_special_tokens=False) for word in sentence.words]
        assert plain([pieces]) == [([piece for word in each for piece in word], [len(word) for word in each])]


def test_chunks_change_nothing(toy_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plain(Subwords(toy_tokenizer).of(SENTENCES))
    monkeypatch.setattr(subwords, "CHUNK", 7)
    assert plain(Subwords(toy_tokenizer).of(SENTENCES)) == whole
    assert Subwords(toy_tokenizer).of([]) == []


def test_a_second_start_tokenises_nothing(
    toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plain(Subwords(toy_tokenizer, tmp_path).of(SENTENCES))
    assert first == plain(Subwords(toy_tokenizer).of(SENTENCES))
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(Subwords, "_tokenised", refuse)
    again = Subwords(toy_tokenizer, tmp_path)
    assert plain(again.of(SENTENCES)) == first
    retagged = [replace(sentence, gold=("O",) * len(sentence.gold), origin="elsewhere") for sentence in SENTENCES]
    assert plain(again.of(retagged)) == first  # other labels, same words
    for changed in ([*SENTENCES[:-1], Example(("other",), ("O",))], SENTENCES[1:], SENTENCES[::-1]):
        with pytest.raises(AssertionError, match="tokenised"):
            again.of(changed)


def test_where_words_end_is_part_of_the_content(toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    cached = Subwords(toy_tokenizer, tmp_path)
    one = [Example(("ab", "c"), ("O", "O"))] * 70
    for other in (
        [Example(("a", "bc"), ("O", "O"))] * 70,
        [Example(("ab", "c", "ab", "c"), ("O",) * 4)] * 35 + [Example(("ab",), ("O",))] * 35,
    ):
        assert plain(cached.of(one)) == plain(Subwords(toy_tokenizer).of(one))
        assert plain(cached.of(other)) == plain(Subwords(toy_tokenizer).of(other))


def test_another_tokenizer_is_another_entry(toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    other = PreTrainedTokenizerFast(tokenizer_object=toy_tokenizer.backend_tokenizer, unk_token="[UNK]")
    other.add_tokens(["zzz"])
    Subwords(toy_tokenizer, tmp_path).of(SENTENCES)
    Subwords(other, tmp_path).of(SENTENCES)
    assert len(list(tmp_path.iterdir())) == 2


def test_padding_and_truncation_of_an_earlier_call_are_no_part_of_it(
    toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    Subwords(toy_tokenizer, tmp_path).of(SENTENCES)
    toy_tokenizer(["a b"], truncation=True, max_length=4, padding="max_length")
    Subwords(toy_tokenizer, tmp_path).of(SENTENCES)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(
    toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = plain(Subwords(toy_tokenizer, tmp_path).of(SENTENCES))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    file.write_bytes({"cut": whole[:-9], "flipped": flipped, "empty": b"", "foreign": b"{}" * 99}[damage])
    with caplog.at_level(logging.WARNING):
        assert plain(Subwords(toy_tokenizer, tmp_path).of(SENTENCES)) == first
    assert len(caplog.messages) == 1
    assert str(file) in caplog.text
    assert "tokenised again" in caplog.text
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_time_only(
    toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        made = Subwords(toy_tokenizer, tmp_path / "file" / "cache").of(SENTENCES)
    assert plain(made) == plain(Subwords(toy_tokenizer).of(SENTENCES))
    assert "cannot be written" in caplog.text


def test_a_few_sentences_are_not_worth_a_file(toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    Subwords(toy_tokenizer, tmp_path).of(SENTENCES[:5])
    assert not list(tmp_path.iterdir())


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPRIME_CACHE", "/a/b")
    assert cache_folder() == Path("/a/b")
    monkeypatch.delenv("METAPRIME_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/metaprime")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "metaprime"


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(MetaprimeError, match=r"CanineTokenizer is a slow tokenizer.*choose an encoder\.name"):
        Subwords(CanineTokenizer())


def test_a_cache_file_has_the_mode_of_the_umask(toy_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        Subwords(toy_tokenizer, tmp_path / "cache").of(SENTENCES)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "cache").iterdir()] == [0o640]


@pytest.mark.parametrize("variable", ["HOME", "METAPRIME_CACHE"])
def test_without_a_home_folder_nothing_is_cached(
    variable: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user of a container may have neither $HOME nor an entry among the users."""
    for name in ("HOME", "METAPRIME_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable == "METAPRIME_CACHE":
        monkeypatch.setenv(variable, "~nobody-of-that-name/cache")

    def no_user(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", no_user)
    assert cache_folder() is None
    assert "set METAPRIME_CACHE to a folder, or run.cache to false" in caplog.text
