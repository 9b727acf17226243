"""Reads texts and their targets from the columns of a table."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from metaprime.data.reading import Format, Problem, Reading, TableRow, shown
from metaprime.data.rows import Example
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.texts.reading import read_rows, text_problems


def examine(source: str, language: str, split: str, config: RegressionConfig, known: bool, form: Format) -> Reading:
    """Reads texts with targets, with all problems.

    Args:
        source: `scheme:root`, such as `jsonl:DIR`.
        language: name of a language of the source.
        split: name of the split.
        config: columns, and the range of the targets.
        known: True: targets outside the range are problems; False: every number is valid.
        form: facts about the files that the section `data` states.

    Raises:
        MetaprimeError: the split does not exist, is not in the format of the source, or lacks a column.

    Example: `examine("jsonl:data", "en", "train", config, True, UNSTATED).sentences`.
    """
    return read_rows(source, language, split, config, partial(_example, config=config, known=known), form)


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


def target_of(value: Any) -> float | None:
    """Returns a value as a finite number: `target_of("2.5")` is 2.5; None for any other, truth values too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
