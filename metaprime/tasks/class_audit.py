"""Checks what all tasks with classes have in common: balance, missing classes, unknown sub-words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from metaprime.data.audit import Finding, Severity


def balance(classes: Counter[str]) -> dict[str, Any]:
    """Returns the count of each class, by name, and the share of the largest: `balance(Counter("aab"))["majority"]`."""
    return {
        "classes": dict(sorted(classes.items())),
        "majority": max(classes.values(), default=0) / max(classes.total(), 1),
    }


def class_columns(facts: Mapping[str, Any]) -> dict[str, str]:
    """Returns cells of a terminal table by header: `class_columns({"words": 3, **balance(Counter("aab"))})`."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in facts["classes"].items())
    return {"words": f"{facts['words']:,}", "in the largest class": f"{facts['majority']:.1%}", "classes": kinds}


def class_findings(
    where: str, count: int, present: Collection[str], wanted: Sequence[str], unit: str, severity: Severity
) -> list[Finding]:
    """Finds a split that lacks classes, or has one class alone.

    Args:
        where: `<language>/<split>`.
        count: examples of the split; one without an example is reported by its size.
        present: classes in it.
        wanted: classes that it should have.
        unit: what has a class, `word` or `text`.
        severity: of a missing class.

    Example: `class_findings("de/train", 9, {"good"}, (), "text", "problem")[0].kind` is `"one class"`.
    """
    if not count:
        return []
    if len(present) == 1:
        text = f"every {unit} has the class {next(iter(present))!r}: check the column of labels and task.label_map"
        return [Finding("fatal", "one class", where, count, text)]
    missing = [name for name in wanted if name not in present]
    text = f"no {unit} of class {', '.join(missing)}"
    return [Finding(severity, "missing class", where, len(missing), text)] if missing else []


def unknown_subwords(where: str, unknown: int, total: int) -> list[Finding]:
    """Reports sub-words that the tokenizer does not know; above one in a hundred they are a problem.

    Args:
        where: `<language>/<split>`.
        unknown: number of them.
        total: number of all sub-words of the split.

    Example: `unknown_subwords("de/train", 3, 200)[0].severity` is `"problem"`.
    """
    if not unknown:
        return []
    text = f"{unknown} of {total} sub-words ({unknown / total:.1%}) are unknown to the tokenizer"
    return [Finding("problem" if unknown > 0.01 * total else "note", "unknown", where, unknown, text)]
