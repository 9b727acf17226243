"""Cuts words that come one by one as they are cut in running text, where a space stands before each of them.

Most tokenizers make the space a part of the word behind it: as a letter of its own (byte-level ones)
or as a mark (Metaspace, or a normalizer that replaces spaces). A corpus gives words without spaces,
and whether the tokenizer then adds them is an option that transformers sets for some of its classes
only. Here both are compared on a few words, and the tokenizer is changed where they differ. The
change is one of its backend, so that it is saved with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from metaprime.types import Spacing

WORDS = ("it", "was", "in", "the", "year", "1990", "don't", "co-op", "U.S.", "3,5", "as", "of", "a", "city")
"""Words to compare; some of them are cut in several parts before sub-words are looked up."""

SAMPLED = 64
"""Entries of the vocabulary to take further words from, for alphabets that WORDS lacks."""


@dataclass(frozen=True)
class Difference:
    """A word that is cut otherwise alone than in running text.

    Attributes:
        word: the word.
        alone: its sub-words when it comes alone.
        in_text: its sub-words between others, with a space before it.
    """

    word: str
    alone: tuple[str, ...]
    in_text: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the word with both: `'of' is cut 'of' alone and 'Ġof' in running text`."""
        alone, in_text = (" ".join(map(repr, pieces)) or "nothing" for pieces in (self.alone, self.in_text))
        return f"{self.word!r} is cut {alone} alone and {in_text} in running text"


@dataclass(frozen=True)
class Spaced:
    """A tokenizer after the comparison.

    Attributes:
        tokenizer: the tokenizer, changed where that was needed.
        notice: a sentence about it, without its name; None if words are cut as in running text anyway.
        right: whether words are now cut as in running text.
    """

    tokenizer: PreTrainedTokenizerBase
    notice: str | None = None
    right: bool = True


def spaced(tokenizer: PreTrainedTokenizerBase, spacing: Spacing) -> Spaced:
    """Compares words alone with words in running text, and changes the tokenizer if they are cut otherwise.

    Args:
        tokenizer: a fast tokenizer; its backend is changed in place.
        spacing: `auto`; `space` puts a space before each word whatever the comparison says; `none`
            leaves the tokenizer as it is.

    Example: `spaced(tokenizer, "auto").tokenizer`
    """
    if spacing == "none":
        return Spaced(tokenizer)
    words = _words(tokenizer)
    comparison = _Comparison(tokenizer, words, _in_text(tokenizer, words))
    before = comparison.differences()
    if spacing == "auto" and not before:
        return Spaced(tokenizer)
    change, left = _best(comparison)
    example = f"for example {before[0]}" if before else ""
    if spacing == "auto" and 2 * len(left) > len(before):
        return Spaced(
            tokenizer,
            f"{len(before)} of {len(words) - 2} words are cut otherwise alone than in running text, {example}; a space before "
            "each does not mend it. encoder.spacing: none takes the tokenizer as it is, space puts the space there all the "
            "same",
            right=False,
        )
    _make(change)
    if spacing == "space":
        return Spaced(_kept(tokenizer), right=not left)
    rest = f" ({len(left)} of {len(words) - 2} words still differ: {left[0]})" if left else ""
    notice = (
        f"words that come alone are cut otherwise than in running text, {example}: each now gets the space that stands before "
        f"it there, and so does the tokenizer that is saved{rest}. encoder.spacing: none leaves the tokenizer as it is"
    )
    return Spaced(_kept(tokenizer), notice, right=not left)


@dataclass(frozen=True)
class _Comparison:
    """Words whose sub-words are known from running text.

    Attributes:
        tokenizer: the tokenizer to compare with it.
        words: the words.
        in_text: place of a word -> its sub-words in running text; without the first word and the last.
    """

    tokenizer: PreTrainedTokenizerBase
    words: list[str]
    in_text: dict[int, tuple[str, ...]]

    def differences(self) -> list[Difference]:
        """Returns the words that the tokenizer now cuts otherwise when they come one by one."""
        alone = self.tokenizer(self.words, is_split_into_words=True, add_special_tokens=False, verbose=False)
        found: dict[int | None, list[str]] = {place: [] for place in self.in_text}
        pieces = self.tokenizer.convert_ids_to_tokens(alone["input_ids"])
        for piece, place in zip(pieces, alone.word_ids(), strict=True):
            found.setdefault(place, []).append(piece)
        pairs = ((self.words[place], tuple(found[place]), pieces) for place, pieces in self.in_text.items())
        return [Difference(word, mine, theirs) for word, mine, theirs in pairs if mine != theirs]


def _words(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Returns WORDS and some words of the tokenizer's own vocabulary, in an order that is always the same."""
    numbers = sorted(tokenizer.get_vocab().values())
    sampled = (str(tokenizer.decode([number])).strip(" ▁") for number in numbers[:: max(1, len(numbers) // SAMPLED)])
    return list(dict.fromkeys([*WORDS, *(word for word in sampled if word.isalpha() and len(word) > 1), "end"]))


def _in_text(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> dict[int, tuple[str, ...]]:
    """Returns the sub-words of each word between others in running text, by its place; without the first and last."""
    # Behind a step that splits words, the option puts a space before each of their parts, as no text has it.
    back = _make(_without_option(tokenizer))
    text = tokenizer(" ".join(words), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    _make(back)
    pieces = tokenizer.convert_ids_to_tokens(text["input_ids"])
    found, end = {}, len(words[0])
    for place, word in enumerate(words[1:-1], start=1):
        begin, end = end, end + 1 + len(word)
        inside = [at for at, (first, last) in enumerate(text["offset_mapping"]) if last > begin and first < end]
        found[place] = tuple(pieces[at] for at in inside)
    return found


Change = list[tuple[Any, str, Any]]
"""Attributes to set: owner, name and value of each."""


def _make(change: Change) -> Change:
    """Makes a change and returns the one that takes it back."""
    back = [(owner, name, getattr(owner, name)) for owner, name, _ in change]
    for owner, name, value in change:
        setattr(owner, name, value)
    return back


def _best(comparison: _Comparison) -> tuple[Change, list[Difference]]:
    """Returns the change that leaves the fewest differences, the first of several, and what it leaves."""
    tried = []
    for change in _changes(comparison.tokenizer):
        back = _make(change)
        tried.append((change, comparison.differences()))
        _make(back)
        if not tried[-1][1]:
            break
    return min(tried, key=lambda one: len(one[1]))


def _changes(tokenizer: PreTrainedTokenizerBase) -> Iterator[Change]:
    """Yields the changes to try: options of the backend, then a normalizer that puts a space before each word.

    The normalizer is tried at each place among the others: some strip spaces, some replace them.
    """
    backend = tokenizer.backend_tokenizer
    for step in _members(backend.pre_tokenizer, pre_tokenizers.Sequence):
        if isinstance(step, pre_tokenizers.ByteLevel):
            yield [(step, "add_prefix_space", True)]
        elif isinstance(step, pre_tokenizers.Metaspace):
            yield [(step, "prepend_scheme", "always")]
    steps = _members(backend.normalizer, normalizers.Sequence)
    for place in range(len(steps) + 1):
        new = normalizers.Sequence([*steps[:place], normalizers.Prepend(" "), *steps[place:]])
        yield [*_without_option(tokenizer), (backend, "normalizer", new)]


def _without_option(tokenizer: PreTrainedTokenizerBase) -> Change:
    """Returns the change by which byte-level steps put no space anywhere."""
    steps = _members(tokenizer.backend_tokenizer.pre_tokenizer, pre_tokenizers.Sequence)
    return [(step, "add_prefix_space", False) for step in steps if isinstance(step, pre_tokenizers.ByteLevel)]


def _members(step: Any, sequence: type[Any]) -> list[Any]:
    """Returns the members of a sequence of steps, or the one step that there is."""
    if step is None:
        return []
    return list(step) if isinstance(step, sequence) else [step]


def _kept(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Returns a tokenizer of the same backend whose class reads all of it from tokenizer.json.

    Classes with a constructor of their own build the backend anew from the vocabulary, without the change.
    """
    if type(tokenizer) is TokenizersBackend or "__init__" not in type(tokenizer).__dict__:
        return tokenizer
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        name_or_path=tokenizer.name_or_path,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        model_input_names=tokenizer.model_input_names,
        **tokenizer.special_tokens_map,
    )
    return cast(PreTrainedTokenizerBase, plain)
