"""Audits texts with targets: facts about a split, and findings about its targets and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from metaprime.data.audit import Finding
from metaprime.data.rows import Example
from metaprime.tasks.regression.reading import examine
from metaprime.tasks.task import Audit
from metaprime.tasks.texts.audit import lengths, text_counts


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Returns counts of a split, and least, mean and largest target: `facts(texts)["targets"]["mean"]`."""
    targets = [text.gold for text in texts]
    known = {"least": min(targets), "mean": fmean(targets), "largest": max(targets)} if targets else {}
    return {**text_counts(texts), "targets": known}


def columns(found: Mapping[str, Any]) -> dict[str, str]:
    """Returns cells of a terminal table by header: `columns(facts(texts))["targets"]`."""
    told = ", ".join(f"{name} {value:.3g}" for name, value in found["targets"].items())
    return {"words": f"{found['words']:,}", "targets": told}


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split whose targets are all alike, from which nothing can be learned.

    Args:
        where: `<language>/<split>`.
        texts: of the split.
        config: a RegressionConfig, or None, which makes no difference.

    Example: `labels("en/train", texts, config)`.
    """
    if not texts or len({text.gold for text in texts}) > 1:
        return []
    told = f"every text has the target {texts[0].gold:g}: check the column of targets, task.label"
    return [Finding("fatal", "one target", where, len(texts), told)]


AUDIT = Audit(examine=examine, facts=facts, columns=columns, labels=labels, lengths=lengths)
