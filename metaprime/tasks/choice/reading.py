"""Reads texts, their choices and the right one from the columns of a table."""

from __future__ import annotations

from collections.abc import Sequence

from metaprime.data.reading import Problem, TableRow, shown
from metaprime.data.rows import Example
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.texts.classes import class_name
from metaprime.tasks.texts.examples import shared_out
from metaprime.tasks.texts.reading import examiner, text_problems
from metaprime.types import MetaprimeError


def _example(row: TableRow, config: ChoiceConfig, known: bool) -> Example | list[Problem]:
    """Returns the example of a row: its text with the question, its choices, and the column of the right one."""
    problems = text_problems(row, config.texts)
    asked = row.values[config.question] if config.question else None
    if isinstance(asked, str) and config.questions and asked not in config.questions:
        problems.append(Problem("unmapped type", row.origin, _unknown(config, asked)))
    given = class_name(row.values[config.label])
    gold = config.spellings.get(given or "")
    if gold is None:
        text = f"{config.label} is {shown(str(row.values[config.label]))}, none of {', '.join(config.spellings)}"
        problems.append(Problem("unmapped type", row.origin, f"{text}; correct it, or map it in task.label_map"))
    return problems or Example(texts_of([row.values[name] for name in config.texts], config), gold, row.origin)


examine = examiner(_example)
"""Reads one split of texts with choices with all its problems (`texts.reading.examiner`)."""


def texts_of(columns: Sequence[str], config: ChoiceConfig) -> tuple[str, ...]:
    """Returns the text, with the question behind it, and the choices.

    Args:
        columns: the values of `config.texts`; any other number of words is spread over text and choices.
        config: spells out the question.

    Raises:
        MetaprimeError: `task.questions` does not have the question.

    Example: `texts_of(["It rained.", "We stayed.", "We left."], ChoiceConfig())`.
    """
    if config.question is None or len(columns) != len(config.texts):
        return shared_out(columns, 1 + len(config.choices))
    text, asked, *choices = columns
    if config.questions and asked not in config.questions:
        raise MetaprimeError(f"{config.question} is {shown(asked)}: give one of {', '.join(config.questions)}")
    return (f"{text} {config.questions.get(asked, asked)}", *choices)


def _unknown(config: ChoiceConfig, asked: str) -> str:
    """Returns the text about a question that the config does not have."""
    return f"{config.question} is {shown(asked)}, none of {', '.join(config.questions)}; add it to task.questions"
