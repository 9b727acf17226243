"""Decides if episodes share a pass; a loop runs them one by one if torch cannot batch them."""

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
"""Parts of torch's messages for operations that vmap cannot batch."""

SILENTLY_WRONG = "under vmap torch's second derivative of a layer norm that the inner loop moves is wrong"
"""Reason for a loop where torch raises no error: with weights that differ between episodes, its
batching rule treats mean and deviation as constants."""

log = logging.getLogger(__name__)


def choose_execution(
    trial: Trial, model: TaskModel, task: Task, rows: Sequence[Row], inner: InnerLoop, shown: bool
) -> InnerLoop:
    """Returns the inner loop, changed to `Way.LOOP` and logged if episodes cannot share a pass.

    Args:
        trial: the meta-step, with values of T = 2 episodes.
        model: its adapter and precision may exclude a shared pass.
        task: collates the rows.
        rows: training rows, of which the first two are tried.
        inner: the inner loop of the config.
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
    """Returns the reason against a shared pass that needs no trial; empty if there is none."""
    if model.noisy and inner.moves:
        return f"peft.method {model.adapter.config.method} draws in training, separately for each episode"
    if model.autocast and inner.execution.way is Way.VMAP:
        return "torch has no gradient of bfloat16 products under vmap: encoder.precision"
    return ""


def two_episodes(task: Task, rows: Sequence[Row], model: TaskModel) -> Episodes:
    """Returns two episodes of one inner step; all four batches hold the first two rows.

    Args:
        task: collates the rows.
        rows: at least two.
        model: its device is that of the tensors.

    Returns:
        Episodes with tensors (2, B, L), where B is the number of the two rows' windows.
    """
    collated = task.trial_batch(rows[:2])
    batch = {name: torch.stack([tensor, tensor]) for name, tensor in collated.items()}
    batch = to_device(batch, next(model.parameters()).device)
    return Episodes(("", ""), (0, 1), 2, (batch,), batch)


def why_not_together(trial: Trial, episodes: Episodes, inner: InnerLoop) -> str:
    """Returns the reason why episodes cannot share a pass, by a trial meta-step; empty if they can.

    Args:
        trial: the meta-step, with values of two episodes.
        episodes: tensors (2, B, L), such as `two_episodes(task, rows, model)`.
        inner: the inner loop to try.

    Raises:
        RuntimeError: the trial fails for another reason than vmap.
    """
    if inner.second_order and "backbone" in inner.moves:
        return SILENTLY_WRONG
    try:
        trial.run(episodes, inner)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in VMAP_ERRORS):
            raise
        return str(error).split(". ")[0]
    return ""
