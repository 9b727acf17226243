"""Audits texts with two spans: facts about a split, and findings about its classes and lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from metaprime.data.audit import EXAMPLES, Finding
from metaprime.data.rows import Example
from metaprime.tasks.classification import audit
from metaprime.tasks.spans.encoding import by_words, kept_from
from metaprime.tasks.spans.reading import examine
from metaprime.tasks.task import Text
from metaprime.tasks.texts import audit as texts_audit
from metaprime.tasks.texts.encoding import Ids


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Counts texts by class of one split: `facts(texts)["classes"]` is such as `{"false": 60, "true": 44}`."""
    return audit.facts([replace(text, words=text.words[:1]) for text in texts])


def one_text(words: Sequence[Ids]) -> list[Sequence[Ids]]:
    """Returns the words of a text as one window: `one_text([[1, 2], [3]])` is `[[[1, 2, 3]]]`."""
    return [[list(chain.from_iterable(words))]]


def lengths(where: str, texts: Sequence[Example], text: Text) -> list[Finding]:
    """Finds texts that are cut, spans that do not fit in a window, and unknown sub-words.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        text: the encoder's tokenizer, and the limit on a window.

    Example: `lengths("wsc/train", texts, Text(subwords, Lengths(128)))`.
    """
    words = by_words(texts)
    pieces = text.subwords.of(words)
    apart = [one.origin for one, own in zip(texts, pieces, strict=True) if kept_from(one, own, text) is None]
    findings = texts_audit.lengths(where, words, text, one_text)
    if not apart:
        return findings
    told = f"the two spans of {len(apart)} of {len(texts)} texts do not fit in {text.lengths.longest} sub-words"
    return [Finding("fatal", "spans apart", where, len(apart), told, tuple(apart[:EXAMPLES])), *findings]


AUDIT = replace(audit.AUDIT, examine=examine, facts=facts, lengths=lengths)
