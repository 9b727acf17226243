"""Scores a model on rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaprime.data.rows import Row
from metaprime.models.task_model import TaskModel
from metaprime.tasks import Task
from metaprime.tasks.task import Scores
from metaprime.types import Params


def evaluate(model: TaskModel, task: Task, values: Params, rows: Sequence[Row]) -> tuple[Scores, list[Any]]:
    """Predicts rows and scores the predictions.

    Args:
        model: whose modules are run.
        task: predicts and scores.
        values: all of the model's parameters by name.
        rows: what is scored.

    Returns:
        Scores, and one prediction for each row in the order of `rows`.
    """
    predicted = task.predict(model, values, rows)
    return task.kind.score([row.example for row in rows], predicted), predicted
