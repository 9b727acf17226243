"""Lists the tasks; a new task is one file with a TaskKind, and one line here: its name and place."""

from collections.abc import Callable
from typing import Any

from metaprime.table import Table
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.tagging.settings import TaggingConfig
from metaprime.tasks.task import Audit, Task, TaskConfig, TaskKind

TASKS: Table[TaskKind] = Table(
    tagging="metaprime.tasks.tagging.task:TAGGING",
    classification="metaprime.tasks.classification.task:CLASSIFICATION",
    regression="metaprime.tasks.regression.task:REGRESSION",
    multiple_choice="metaprime.tasks.choice.task:MULTIPLE_CHOICE",
    span_pairs="metaprime.tasks.spans.task:SPAN_PAIRS",
)
"""Task kinds by the name that `task.name` gives."""

_SETTINGS: dict[str, type[TaskConfig]] = {
    "tagging": TaggingConfig,
    "classification": ClassificationConfig,
    "regression": RegressionConfig,
    "multiple_choice": ChoiceConfig,
    "span_pairs": SpansConfig,
}
"""Settings that are declared apart from their task, which needs torch."""


_AUDITS: Table[Callable[[Any], Audit]] = Table(
    tagging="metaprime.tasks.tagging.audit:audit_for",
    classification="metaprime.tasks.classification.audit:audit_for",
    regression="metaprime.tasks.regression.audit:audit_for",
    multiple_choice="metaprime.tasks.choice.audit:audit_for",
    span_pairs="metaprime.tasks.spans.audit:audit_for",
)
"""Checks of corpora by a task's config, declared apart from the task, which needs torch."""


def task_kind(config: TaskConfig) -> TaskKind:
    """Returns the kind of a config, with its metrics: `task_kind(TaggingConfig()).metric.label` is `F1`."""
    kind = TASKS[config.name]
    return kind.of(config) if kind.of else kind


def audit_of(config: TaskConfig) -> Audit | None:
    """Returns a task's checks of corpora, without torch as `settings_of`; None: it has none.

    Example: `audit_of(TaggingConfig()).facts(sentences)`.
    """
    return _AUDITS[config.name](config) if config.name in _AUDITS else task_kind(config).audit


def settings_of(name: str) -> type[TaskConfig]:
    """Returns the class of a task's settings; torch is loaded only for a task that declares them in its own file.

    Example: `settings_of("tagging")().labels`.
    """
    return _SETTINGS.get(name) or TASKS[name].config


def reads_corpora(name: str) -> bool:
    """Tells whether a task reads the files that `data.sources` finds: `reads_corpora("tagging")`.

    A task in a file of one's own may read in another way.
    """
    return name in _SETTINGS


__all__ = ["TASKS", "Task", "TaskConfig", "TaskKind", "audit_of", "reads_corpora", "settings_of", "task_kind"]
