"""Reads the classes of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaprime.data.reading import Problem, TableRow, shown
from metaprime.data.rows import Example
from metaprime.tasks.texts.reading import examiner, text_problems
from metaprime.tasks.texts.settings import ClassesConfig


def _example(row: TableRow, config: ClassesConfig, known: bool) -> Example | list[Problem]:
    """Returns the example of a row: its texts and their class."""
    gold = class_of(row, config.label, config.labels, config.classes if known and config.labels else None)
    problems = text_problems(row, config.texts) + ([gold] if isinstance(gold, Problem) else [])
    return problems or Example(tuple(row.values[name] for name in config.texts), gold, row.origin)


examine = examiner(_example)
"""Reads one split of texts with classes with all its problems (`reading.examiner`)."""


def class_of(row: TableRow, column: str, labels: Sequence[str], classes: Mapping[str, str] | None) -> str | Problem:
    """Returns the class of a row, or the problem of it.

    Args:
        row: the row.
        column: name of the column of classes.
        labels: the run's classes.
        classes: one of these for each of a corpus's; None: every class is valid.

    Example: `class_of(TableRow("a:1", {"label": 1}), "label", ("no", "yes"), {"1": "yes"})` is `"yes"`.
    """
    given = row.values[column]
    value = class_name(given)
    if given is None:
        return Problem("missing value", row.origin, f"{column} is missing; fill it or remove the row")
    if value is None:
        text = f"{column} is {shown(str(given))}, which is no class; give a name or a whole number, or remove the row"
        return Problem("missing value", row.origin, text)
    if classes is not None and value not in classes:
        return Problem("unmapped type", row.origin, _unknown(value, labels))
    return value if classes is None else classes[value]


def class_name(value: Any) -> str | None:
    """Returns a class as text: `class_name(1)` and `class_name(1.0)` are `"1"`; None for what is no class.

    Truth values are `true` and `false`, as JSON has them.
    """
    if isinstance(value, bool):
        return str(value).lower()
    # A table with a gap in a column of numbers has them as floats.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None if isinstance(value, str | int) else None


def _unknown(value: str, labels: Sequence[str]) -> str:
    """Returns the text about a class that the run does not know."""
    alike = next((name for name in labels if name.casefold() == value.casefold()), labels[-1])
    key = value if len(value) <= 40 and value.isprintable() else shown(value)
    return (
        f"class {shown(value)} is neither in task.labels {list(labels)} nor in task.label_map; add it, or e.g. "
        f"task.label_map: {{{key}: {alike}}}"
    )
