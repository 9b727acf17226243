"""Scores a model on labelled rows."""

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
        model: encoder, adapter and head.
        task: predicts and scores.
        values: all parameters of the model by full name, in shapes such as (D, D).
        rows: labelled rows to score.

    Returns:
        The scores, and one prediction for each row in the order of `rows`.

    Example: `evaluate(model, task, dict(model.named_parameters()), rows)[0].headline`.
    """
    predicted = task.predict(model, values, rows)
    return task.kind.score([row.example for row in rows], predicted), predicted
