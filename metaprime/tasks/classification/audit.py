"""Audits texts with classes: facts about a split, and findings about its classes and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metaprime.data.audit import Finding, scripts
from metaprime.data.rows import Example
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
        "classes": dict(sorted(classes.items())),
        "majority": max(classes.values(), default=0) / max(len(texts), 1),
        "scripts": scripts(texts),
    }


def columns(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns cells of a terminal table by header: `columns(facts(texts))["classes"]`."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in facts["classes"].items())
    return {"words": f"{facts['words']:,}", "in the largest class": f"{facts['majority']:.1%}", "classes": kinds}


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split that lacks classes of a config, or has one class alone.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        config: a ClassificationConfig; None: no class is required.

    Example: `labels("en/train", texts, config)`.
    """
    present = {text.gold for text in texts}
    # A split without texts is reported by its size.
    if not texts:
        return []
    if len(present) == 1:
        text = f"every text has the class {present.pop()!r}: check task.label and label_map"
        return [Finding("fatal", "one class", where, len(texts), text)]
    missing = [name for name in (config.labels if config else ()) if name not in present]
    text = f"no text of class {', '.join(missing)}: no text of it can be learned from; leave it out of task.labels, or map it"
    return [Finding("problem", "missing class", where, len(missing), text)] if missing else []


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
    if unknown:
        told = f"{unknown} of {len(ids)} sub-words ({unknown / len(ids):.1%}) are unknown to the tokenizer"
        severe = unknown > 0.01 * len(ids)
        findings.append(Finding("problem" if severe else "note", "unknown", where, unknown, told))
    return findings


AUDIT = Audit(examine=examine, facts=facts, columns=columns, labels=labels, lengths=lengths)


def audit_for(config: Any) -> Audit:
    """Returns the checks, which are the same for every config: `audit_for(config).facts(texts)`.

    Args:
        config: a ClassificationConfig.
    """
    return AUDIT
