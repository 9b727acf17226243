"""Audits texts with choices: facts about a split, and findings about its answers and lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from metaprime.data.audit import Finding
from metaprime.data.rows import Example
from metaprime.tasks.choice.reading import examine
from metaprime.tasks.class_audit import balance, class_columns, class_findings
from metaprime.tasks.task import Audit
from metaprime.tasks.texts.audit import lengths, text_counts
from metaprime.tasks.texts.encoding import Ids


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Counts the right choices of one split: `facts(texts)["classes"]` is such as `{"choice1": 50, "choice2": 50}`."""
    return {**text_counts(texts), **balance(Counter(text.gold for text in texts))}


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split in which one choice is always the right one.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        config: a ChoiceConfig; None: no choice is required.

    Example: `labels("en/train", texts, config)`.
    """
    wanted = config.choices if config else ()
    return class_findings(where, len(texts), {text.gold for text in texts}, wanted, "text", "problem")


def each_choice(texts: Sequence[Ids]) -> list[Sequence[Ids]]:
    """Returns the pairs of a text and each of its choices: `each_choice([[1], [2], [3]])` is `[[[1], [2]], [[1], [3]]]`."""
    return [[texts[0], choice] for choice in texts[1:]]


AUDIT = Audit(
    examine=examine, facts=facts, columns=class_columns, labels=labels, lengths=partial(lengths, group=each_choice)
)


def audit_for(config: Any) -> Audit:
    """Returns the checks, which are the same for every config: `audit_for(config).facts(texts)`.

    Args:
        config: a ChoiceConfig.
    """
    return AUDIT
