"""Lists the tasks; a new task is one file with a TaskKind, and one line here: its name and place."""

from collections.abc import Callable
from typing import Any

from metaprime.table import Table
from metaprime.tasks.choice.settings import ChoiceConfig
from metaprime.tasks.classification.settings import ClassificationConfig
from metaprime.tasks.classifications.settings import ClassificationsConfig
from metaprime.tasks.regression.settings import RegressionConfig
from metaprime.tasks.spans.settings import SpansConfig
from metaprime.tasks.tagging.settings import TaggingConfig
from metaprime.tasks.task import Audit, Task, TaskConfig, TaskKind

TASKS: Table[TaskKind] = Table(
    tagging="metaprime.tasks.tagging.task:TAGGING",
    classification="metaprime.tasks.classification.task:CLASSIFICATION",
    classifications="metaprime.tasks.classifications.task:CLASSIFICATIONS",
    regression="metaprime.tasks.regression.task:REGRESSION",
    multiple_choice="metaprime.tasks.choice.task:MULTIPLE_CHOICE",
    span_pairs="metaprime.tasks.spans.task:SPAN_PAIRS",
)
"""Task kinds by the name that `task.name` gives."""

_SETTINGS: dict[str, type[TaskConfig]] = {
    "tagging": TaggingConfig,
    "classification": ClassificationConfig,
    "classifications": ClassificationsConfig,
    "regression": RegressionConfig,
    "multiple_choice": ChoiceConfig,
    "span_pairs": SpansConfig,
}
"""Settings that are declared apart from their task, which needs torch."""


_AUDITS: Table[Audit | Callable[[Any], Audit]] = Table(
    tagging="metaprime.tasks.tagging.audit:audit_for",
    classification="metaprime.tasks.classification.audit:AUDIT",
    classifications="metaprime.tasks.classifications.audit:AUDIT",
    regression="metaprime.tasks.regression.audit:AUDIT",
    multiple_choice="metaprime.tasks.choice.audit:AUDIT",
    span_pairs="metaprime.tasks.spans.audit:AUDIT",
)
"""Checks of corpora, or a function from a task's config to them, declared apart from the task, which needs torch."""


def task_kind(config: TaskConfig) -> TaskKind:
    """Returns the kind of a config, with its metrics: `task_kind(TaggingConfig()).metric.label` is `F1`."""
    kind = TASKS[config.name]
    return kind.of(config) if kind.of else kind


def audit_of(config: TaskConfig) -> Audit | None:
    """Returns a task's checks of corpora, without torch as `settings_of`; None: it has none.

    Example: `audit_of(TaggingConfig()).facts(sentences)`.
    """
    if config.name not in _AUDITS:
        return task_kind(config).audit
    found = _AUDITS[config.name]
    return found if isinstance(found, Audit) else found(config)


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
