"""Counts texts, and finds those that are cut and sub-words that the tokenizer does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaprime.data.audit import Finding, scripts
from metaprime.data.rows import Example
from metaprime.tasks.class_audit import unknown_subwords
from metaprime.tasks.task import Text
from metaprime.tasks.texts.encoding import Group, length, one_window, texts_ids


def text_counts(examples: Sequence[Example]) -> dict[str, Any]:
    """Returns the facts about a split that all tasks over whole texts have: `text_counts(examples)["sentences"]`."""
    words = [sum(len(text.split()) for text in example.words) for example in examples]
    return {
        "sentences": len(examples),
        "words": sum(words),
        "longest_words": max(words, default=0),
        "scripts": scripts(examples),
    }


def lengths(where: str, examples: Sequence[Example], text: Text, group: Group = one_window) -> list[Finding]:
    """Finds examples that are cut, and unknown sub-words.

    Args:
        where: `<language>/<split>`.
        examples: of the split.
        text: the encoder's tokenizer, and the limit on a window.
        group: returns the texts of each window of an example, one or two.

    Example: `lengths("en/train", examples, Text(subwords, Lengths(128)))`.
    """
    pieces = [texts_ids(own) for own in text.subwords.of(examples)]
    cut = sum(any(length(texts, text) > text.lengths.longest for texts in group(own)) for own in pieces)
    ids = [number for own in pieces for part in own for number in part]
    findings = []
    if cut:
        share = cut / len(examples)
        told = (
            f"{cut} of {len(examples)} texts ({share:.1%}) are longer than {text.lengths.longest} sub-words and are cut"
        )
        findings.append(Finding("problem" if share > 0.05 else "note", "texts cut", where, cut, told))
    return findings + unknown_subwords(where, ids.count(text.subwords.tokenizer.unk_token_id), len(ids))
