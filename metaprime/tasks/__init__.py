"""Lists the tasks; a new task is one file with a TaskKind, and one line here: its import."""

# ruff: noqa: F401

from metaprime.tasks.tagging.task import TAGGING
from metaprime.tasks.task import Task, TaskConfig, TaskKind

TASKS: dict[str, TaskKind] = {kind.name: kind for kind in list(vars().values()) if isinstance(kind, TaskKind)}
"""Task kinds by the name that `task.name` gives."""

__all__ = ["TASKS", "Task", "TaskConfig", "TaskKind"]
