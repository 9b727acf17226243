"""Reads texts and their targets from the columns of a table."""

from __future__ import annotations

import math
from typing import Any

from metaprime.data.reading import Problem, TableRow, shown
from metaprime.data.rows import Example
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.texts.reading import examiner, text_problems


def _example(row: TableRow, config: RegressionConfig, known: bool) -> Example | list[Problem]:
    """Returns the example of a row: its texts and their target."""
    given = row.values[config.label]
    value, problems = target_of(given), text_problems(row, config.texts)
    if given is None:
        return [
            *problems,
            Problem("missing value", row.origin, f"{config.label} is missing; fill it or remove the row"),
        ]
    if value is None:
        text = f"{config.label} is {shown(str(given))}, which is no number; write one such as 2.5, or remove the row"
        return [*problems, Problem("not a number", row.origin, text)]
    if known and config.range and not config.range[0] <= value <= config.range[1]:
        text = f"{config.label} is {value:g}, outside task.range {list(config.range)}; correct one of the two"
        problems.append(Problem("out of range", row.origin, text))
    return problems or Example(tuple(row.values[name] for name in config.texts), value, row.origin)


examine = examiner(_example)
"""Reads one split of texts with targets with all its problems (`texts.reading.examiner`)."""


def target_of(value: Any) -> float | None:
    """Returns a value as a finite number: `target_of("2.5")` is 2.5; None for any other, truth values too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
