"""Whether episodes can be adapted together: what torch has no rule for, or gets wrong, goes one after another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator

from metaprime.config.sections import Config
from metaprime.data.rows import Row, to_device
from metaprime.meta import LEARNERS, InnerLoop, MetaStep, Way
from metaprime.models.encoder import Encoder
from metaprime.models.task_model import TaskModel, functional_loss
from metaprime.priming.starts import rules_of, starting_values
from metaprime.tasks.task import Task
from metaprime.types import Episodes, Params, State

VMAP_ERRORS = ("vmap", "Batching rule")
"""Words of torch for: a tensor asked for its value, a shape that depends on one, an operator without a rule."""

SILENTLY_WRONG = "under vmap torch's second derivative of a layer norm that the inner loop moves is wrong"
"""No error tells of it: where the weights differ between episodes, its rule takes mean and deviation as constants."""

log = logging.getLogger(__name__)


def choose_execution(
    config: Config,
    accelerator: Accelerator,
    encoder: Encoder,
    task: Task,
    pools: Mapping[str, Sequence[Row]],
    model: TaskModel,
    state: State,
    meta_step: MetaStep,
    inner: InnerLoop,
) -> InnerLoop:
    """The inner, with episodes one after another where they cannot go together, and a notice that says why."""
    if inner.execution.way is Way.LOOP:
        return inner
    if model.noisy and LEARNERS[config.learner.name].adapts:
        reason = f"peft.method {config.peft.method} draws in training, for each episode by itself"
    elif model.autocast and inner.execution.way is Way.VMAP:
        reason = "torch has no gradient of bfloat16 products under vmap: encoder.precision"
    else:
        start = starting_values(model, state, rules_of(config), config.run.seed, 0, (0, 1))
        rows = next(iter(pools.values()))
        reason = why_not_batched(model, task, state, start, rows, meta_step, inner)
    if not reason:
        return inner
    if accelerator.is_main_process:
        log.warning(
            "%s cannot adapt episodes together (%s): they are adapted one after another, as with inner.batched=false",
            type(encoder.module).__name__,
            reason,
        )
    return inner.executed(way=Way.LOOP)


def why_not_batched(
    model: TaskModel,
    task: Task,
    state: State,
    start: Params,
    rows: Sequence[Row],
    meta_step: MetaStep,
    inner: InnerLoop,
) -> str:
    """What keeps this encoder from adapting episodes together, in torch's words; empty if nothing does.

    Found out by one meta-step over two episodes of the same two sentences; `start` is phi and head of two episodes.
    """
    if inner.second_order and "backbone" in inner.moves:
        return SILENTLY_WRONG
    collated = task.collate(rows[:2])
    batch = {name: torch.stack([tensor, tensor]) for name, tensor in collated.items()}
    batch = to_device(batch, next(model.parameters()).device)
    episodes = Episodes(("", ""), (0, 1), 2, (batch,), batch)
    start = {name: value for name, value in start.items() if not name.startswith("rates.")}  # they are of all n steps
    inner = replace(inner, outer=tuple(group for group in inner.outer if group != "rates"))
    try:
        meta_step(functional_loss(model, task.measure), state.backbone, start, episodes, inner)
    except RuntimeError as error:
        if not any(sign in str(error) for sign in VMAP_ERRORS):
            raise
        return str(error).split(". ")[0]
    return ""
