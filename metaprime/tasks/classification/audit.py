"""Audits texts with classes: facts about a split, and findings about its classes and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from metaprime.data.audit import Finding
from metaprime.data.rows import Example
from metaprime.tasks.class_audit import balance, class_columns, class_findings
from metaprime.tasks.task import Audit
from metaprime.tasks.texts.audit import lengths, text_counts
from metaprime.tasks.texts.classes import examine


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Counts texts by class of one split; adds its shares of scripts.

    Example: `facts(texts)["classes"]` is such as `{"negative": 120, "positive": 99}`.
    """
    return {**text_counts(texts), **balance(Counter(text.gold for text in texts))}


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split that lacks classes of a config, or has one class alone.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        config: names the answers; None: no class is required.

    Example: `labels("en/train", texts, config)`.
    """
    wanted = config.answers if config else ()
    return class_findings(where, len(texts), {text.gold for text in texts}, wanted, "text", "problem")


AUDIT = Audit(examine=examine, facts=facts, columns=class_columns, labels=labels, lengths=lengths)
