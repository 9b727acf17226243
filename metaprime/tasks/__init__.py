"""Lists the tasks; a new task is one file with a TaskKind, and one line here."""

from metaprime.tasks.tagging.task import TAGGING
from metaprime.tasks.task import Task, TaskConfig, TaskKind

TASKS: dict[str, TaskKind] = {kind.name: kind for kind in (TAGGING,)}
"""Task kinds by the name that `task.name` gives."""

__all__ = ["TASKS", "Task", "TaskConfig", "TaskKind"]
