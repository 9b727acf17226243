"""Lists the tasks. A new task is one file with a TaskKind, and one line here."""

from metaprime.tasks.tagging.task import TAGGING
from metaprime.tasks.task import Task, TaskConfig, TaskKind

TASKS: dict[str, TaskKind] = {kind.name: kind for kind in (TAGGING,)}

__all__ = ["TASKS", "Task", "TaskConfig", "TaskKind"]
