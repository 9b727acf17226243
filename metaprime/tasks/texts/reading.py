"""Reads examples from the rows of a table with named columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from metaprime.data.reading import Format, Problem, Reading, TableRow, dropping, shown
from metaprime.data.rows import Example
from metaprime.data.sources import read_records
from metaprime.tasks.texts.settings import TextsConfig

OfRow: TypeAlias = "Callable[[TableRow, Any, bool], Example | list[Problem]]"
"""Makes the example of a row, or finds all problems because of which there is none. Takes the row, the task's config, and
True if answers that the config does not know are problems."""

Examine: TypeAlias = "Callable[[str, str, str, Any, bool, Format], Reading]"
"""The type of `Audit.examine`."""


def examiner(of_row: OfRow) -> Examine:
    """Returns a function that reads one split with all its problems, even those that the policy does not allow.

    Args:
        of_row: makes the example of a row.

    Returns:
        A function from source, language, split, config, `known` and format to a Reading, as `Audit.examine`
        is. It raises MetaprimeError if the split does not exist, is not in the format of the source, or lacks a column.

    Example: `examiner(of_row)("jsonl:data", "en", "train", config, True, UNSTATED).sentences`.
    """

    def examine(source: str, language: str, split: str, config: TextsConfig, known: bool, form: Format) -> Reading:
        """Reads one split with all its problems."""
        table = read_records(source, language, split, config.columns, form)
        found = Reading(problems=list(table.problems), place=table.place)
        for row in table.rows:
            example = of_row(row, config, known)
            # There is no example without a text or an answer, whatever the policy.
            if isinstance(example, Example):
                found.sentences.append(example)
            else:
                found.problems.extend(dropping(example, config.invalid))
        return found

    return examine


def text_problems(row: TableRow, columns: Sequence[str]) -> list[Problem]:
    """Finds texts of a row that are missing, or are no texts.

    Args:
        row: the row.
        columns: names of the columns that hold texts.

    Example: `text_problems(TableRow("a:1", {"text": " "}), ["text"])[0].kind` is `"missing value"`.
    """
    problems: list[Problem] = []
    for name in columns:
        value = row.values[name]
        if not isinstance(value, str) or not value.strip():
            what = (
                "missing"
                if value is None
                else "empty"
                if isinstance(value, str)
                else f"{shown(str(value))}, not a text"
            )
            problems.append(Problem("missing value", row.origin, f"{name} is {what}; fill it or remove the row"))
        elif wrong := _not_text(value):
            problems.append(Problem("not UTF-8", row.origin, f"{name} has {wrong}; correct it"))
    return problems


def _not_text(value: str) -> str:
    """Returns what a text has that cannot be written in UTF-8; empty: nothing."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"half a surrogate pair in {shown(value)}"
    return ""
