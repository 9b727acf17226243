"""Finds out if episodes can be adapted together; what torch has no rule for, or gets wrong, goes one after another."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from metaprime.data.rows import Row, to_device
from metaprime.meta import InnerLoop, Way
from metaprime.models.task_model import TaskModel
from metaprime.priming.memory import Trial
from metaprime.tasks import Task
from metaprime.types import Episodes

VMAP_ERRORS = ("vmap", "Batching rule")
"""Words of torch for: a tensor asked for its value, a shape that depends on one, an operator without a rule."""

SILENTLY_WRONG = "under vmap torch's second derivative of a layer norm that the inner loop moves is wrong"
"""Torch raises no error: where the weights differ between episodes, its rule takes mean and deviation as constants."""

log = logging.getLogger(__name__)


def choose_execution(
    trial: Trial, model: TaskModel, task: Task, rows: Sequence[Row], inner: InnerLoop, shown: bool
) -> InnerLoop:
    """Returns the inner loop, with episodes one after another where they cannot go together; a notice says why.

    Args:
        trial: the meta-step, with values of two episodes.
        model: whose adapter and precision may rule it out.
        task: collates.
        rows: any; the first two are tried.
        inner: the inner loop as asked for.
        shown: whether this process logs.
    """
    if inner.execution.way is Way.LOOP:
        return inner
    reason = _known_reason(model, inner) or why_not_together(trial, two_episodes(task, rows, model), inner)
    if not reason:
        return inner
    if shown:
        log.warning(
            "%s cannot adapt episodes together (%s): they are adapted one after another, as with inner.batched=false",
            type(model.backbone).__name__,
            reason,
        )
    return inner.executed(way=Way.LOOP)


def _known_reason(model: TaskModel, inner: InnerLoop) -> str:
    """Returns what rules it out without a trial; empty if nothing does."""
    if model.noisy and inner.moves:
        return f"peft.method {model.adapter.config.method} draws in training, for each episode by itself"
    if model.autocast and inner.execution.way is Way.VMAP:
        return "torch has no gradient of bfloat16 products under vmap: encoder.precision"
    return ""


def two_episodes(task: Task, rows: Sequence[Row], model: TaskModel) -> Episodes:
    """Returns two episodes of one inner step, all four batches of the same two rows."""
    collated = task.collate(rows[:2])
    batch = {name: torch.stack([tensor, tensor]) for name, tensor in collated.items()}
    batch = to_device(batch, next(model.parameters()).device)
    return Episodes(("", ""), (0, 1), 2, (batch,), batch)


def why_not_together(trial: Trial, episodes: Episodes, inner: InnerLoop) -> str:
    """Tries one meta-step over two episodes and returns what keeps it from running, in torch's words; empty: nothing."""
    if inner.second_order and "backbone" in inner.moves:
        return SILENTLY_WRONG
    try:
        trial.run(episodes, inner)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in VMAP_ERRORS):
            raise
        return str(error).split(". ")[0]
    return ""
