"""Lists the tasks; a new task is one file with a TaskKind, and one line here: its name and place."""

from metaprime.table import Table
from metaprime.tasks.tagging.settings import TaggingConfig
from metaprime.tasks.task import Task, TaskConfig, TaskKind

TASKS: Table[TaskKind] = Table(
    tagging="metaprime.tasks.tagging.task:TAGGING",
)
"""Task kinds by the name that `task.name` gives."""

_SETTINGS: dict[str, type[TaskConfig]] = {"tagging": TaggingConfig}
"""Settings that are declared apart from their task, which needs torch."""


def settings_of(name: str) -> type[TaskConfig]:
    """Returns the class of a task's settings; torch is loaded only for a task that declares them in its own file.

    Example: `settings_of("tagging")().labels`.
    """
    return _SETTINGS.get(name) or TASKS[name].config


__all__ = ["TASKS", "Task", "TaskConfig", "TaskKind", "settings_of"]
