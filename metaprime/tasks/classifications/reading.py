"""Reads the texts of one of several classifications; a class has its task before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from metaprime.data.reading import Format, Reading
from metaprime.tasks.classifications.settings import of_task
from metaprime.tasks.texts.classes import examine as examine_classes


def examine(source: str, language: str, split: str, config: Any, known: bool, form: Format) -> Reading:
    """Reads one split with all its problems, by the settings of its task, as `Audit.examine` does.

    Args:
        source: corpus whose parts are the tasks.
        language: name of the task.
        split: its split.
        config: a ClassificationsConfig.
        known: whether classes are restricted to the config's.
        form: facts about the files.

    Raises:
        MetaprimeError: the config has no such task, or the split cannot be read.

    Example: `examine("jsonl:glue", "cola", "train", config, True, UNSTATED).sentences[0].gold`.
    """
    found = examine_classes(source, language, split, config.task_of(language), known, form)
    named = [replace(one, gold=of_task(language, one.gold)) for one in found.sentences]
    return replace(found, sentences=named)
