"""Reads texts and their classes from the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaprime.data.reading import Format, Problem, Reading, TableRow, dropping, shown
from metaprime.data.rows import Example
from metaprime.data.sources import read_records
from metaprime.tasks.classification.settings import ClassificationConfig


def examine(source: str, language: str, split: str, config: ClassificationConfig, known: bool, form: Format) -> Reading:
    """Reads one split with all its problems, even those that the policy does not allow.

    Args:
        source: `scheme:root`, such as `jsonl:DIR`.
        language: name of a language of the source.
        split: name of the split.
        config: columns, classes and their mapping.
        known: True: classes that the config does not name are problems; False: every class is valid.
        form: facts about the files that the section `data` states.

    Raises:
        MetaprimeError: the split does not exist, is not in the format of the source, or lacks a column.

    Example: `examine("jsonl:data", "en", "train", config, True, UNSTATED).sentences`.
    """
    table = read_records(source, language, split, config.columns, form)
    found = Reading(problems=list(table.problems), place=table.place)
    classes = _classes(config) if known else None
    for row in table.rows:
        problems = dropping(_problems(row, config, classes), config.invalid)
        found.problems.extend(problems)
        # There is no example without a text or a class, whatever the policy.
        if not problems:
            found.sentences.append(_example(row, config, classes))
    return found


def _classes(config: ClassificationConfig) -> dict[str, str]:
    """Returns the run's class of each of a corpus's."""
    return {**{name: name for name in config.labels}, **config.label_map}


def class_name(value: Any) -> str | None:
    """Returns a class as text: `class_name(1)` is `"1"`; None for what is no class.

    Truth values are `true` and `false`, as JSON has them.
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip() or None if isinstance(value, str | int) else None


def _example(row: TableRow, config: ClassificationConfig, classes: Mapping[str, str] | None) -> Example:
    """Returns the example of a row without problems."""
    texts = tuple(row.values[name] for name in config.texts)
    name = str(class_name(row.values[config.label]))
    return Example(texts, name if classes is None else classes[name], row.origin)


def _problems(row: TableRow, config: ClassificationConfig, classes: Mapping[str, str] | None) -> list[Problem]:
    """Finds a missing text and a missing or unknown class of a row."""
    problems: list[Problem] = []
    for name in config.texts:
        value = row.values[name]
        if not isinstance(value, str) or not value.strip():
            what = "empty" if isinstance(value, str) else f"{shown(str(value))}, not a text"
            problems.append(Problem("missing value", row.origin, f"{name} is {what}; fill it or remove the row"))
        elif wrong := _not_text(value):
            problems.append(Problem("not UTF-8", row.origin, f"{name} has {wrong}; correct it"))
    value = class_name(row.values[config.label])
    if value is None:
        given = row.values[config.label]
        text = f"{config.label} is {shown(str(given))}, which is no class; give a name or a whole number, or remove the row"
        problems.append(Problem("missing value", row.origin, text))
    elif classes is not None and value not in classes:
        problems.append(Problem("unmapped type", row.origin, _unknown(value, config.labels)))
    return problems


def _unknown(value: str, labels: Sequence[str]) -> str:
    """Returns the text about a class that the run does not know."""
    alike = next((name for name in labels if name.casefold() == value.casefold()), labels[-1])
    key = value if len(value) <= 40 and value.isprintable() else shown(value)
    return (
        f"class {shown(value)} is neither in task.labels {list(labels)} nor in task.label_map; add it, or e.g. "
        f"task.label_map: {{{key}: {alike}}}"
    )


def _not_text(value: str) -> str:
    """Returns what a text has that cannot be written in UTF-8; empty: nothing."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"half a surrogate pair in {shown(value)}"
    return ""
