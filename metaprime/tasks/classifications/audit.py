"""Audits the splits of several classifications, each by its own classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metaprime.data.audit import Finding
from metaprime.data.rows import Example
from metaprime.tasks.class_audit import class_findings
from metaprime.tasks.classification import audit
from metaprime.tasks.classifications.reading import examine
from metaprime.tasks.classifications.settings import of_task


def facts(texts: Sequence[Example]) -> dict[str, Any]:
    """Counts texts by class of one split, without their task's name; adds its shares of scripts.

    Example: `facts(texts)["classes"]` is such as `{"acceptable": 120, "unacceptable": 99}`.
    """
    return audit.facts([replace(text, gold=text.gold.partition(": ")[2]) for text in texts])


def labels(where: str, texts: Sequence[Example], config: Any = None) -> list[Finding]:
    """Finds a split that lacks classes of its task, or has one class alone.

    Args:
        where: `<task>/<split>`.
        texts: of the split.
        config: a ClassificationsConfig; None: no class is required.

    Example: `labels("cola/train", texts, config)`.
    """
    name = where.partition("/")[0]
    wanted = [of_task(name, label) for label in config.tasks[name].labels] if config and name in config.tasks else []
    return class_findings(where, len(texts), {text.gold for text in texts}, wanted, "text", "problem")


AUDIT = replace(audit.AUDIT, examine=examine, facts=facts, labels=labels)
