"""Audits texts with classes: facts about a split, and findings about its classes and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprime.data.audit import Finding, scripts
from metaprime.data.rows import Example
from metaprime.tasks.class_audit import balance, class_columns, class_findings, unknown_subwords
from metaprime.tasks.classification.reading import examine
from metaprime.tasks.task import Audit, Text


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Counts texts by class of one split; adds its shares of scripts.

    Example: `facts(texts)["classes"]` is such as `{"negative": 120, "positive": 99}`.
    """
    classes = Counter(text.gold for text in texts)
    words = [sum(len(part.split()) for part in text.words) for text in texts]
    return {
        "sentences": len(texts),
        "words": sum(words),
        "longest_words": max(words, default=0),
        **balance(classes),
        "scripts": scripts(texts),
    }


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split that lacks classes of a config, or has one class alone.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        config: a ClassificationConfig; None: no class is required.

    Example: `labels("en/train", texts, config)`.
    """
    wanted = config.labels if config else ()
    return class_findings(where, len(texts), {text.gold for text in texts}, wanted, "text", "problem")


def lengths(where: str, texts: Sequence[Example], text: Text) -> list[Finding]:
    """Finds texts that are cut, and unknown sub-words.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        text: the encoder's tokenizer, and the limit on a window.

    Example: `lengths("en/train", texts, Text(subwords, Lengths(128)))`.
    """
    pieces, special = text.subwords.of(texts), {}
    pair, one = text.subwords.pair, text.subwords
    special[1] = len(one.before) + len(one.after)
    special[2] = len(pair.before) + len(pair.between) + len(pair.after)
    pairs = zip(texts, pieces, strict=True)
    cut = sum(len(own.ids) + special[len(example.words)] > text.lengths.longest for example, own in pairs)
    ids = np.concatenate([piece.ids for piece in pieces])
    unknown = int((ids == one.tokenizer.unk_token_id).sum())
    findings = []
    if cut:
        share = cut / len(texts)
        told = f"{cut} of {len(texts)} texts ({share:.1%}) are longer than {text.lengths.longest} sub-words and are cut"
        findings.append(Finding("problem" if share > 0.05 else "note", "texts cut", where, cut, told))
    return findings + unknown_subwords(where, unknown, len(ids))


AUDIT = Audit(examine=examine, facts=facts, columns=class_columns, labels=labels, lengths=lengths)


def audit_for(config: Any) -> Audit:
    """Returns the checks, which are the same for every config: `audit_for(config).facts(texts)`.

    Args:
        config: a ClassificationConfig.
    """
    return AUDIT
