"""Draws the episodes of a meta-step, and sums its outcome and cost over processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator

from metaprime.data.rows import to_device
from metaprime.meta import Outcome
from metaprime.meta.chunks import chunks
from metaprime.packing import positions
from metaprime.priming.collapse import is_due, over_processes, same_support
from metaprime.priming.setup import Run
from metaprime.runs.flops import Spent
from metaprime.transfers.shots import noise_keys
from metaprime.types import NOISE, Episodes, Params


def draw(run: Run, step: int) -> Episodes:
    """Returns this process's share of the episodes of meta-step `step`, on its device."""
    mine = range(run.accelerator.process_index, run.sampler.shape.episodes, run.accelerator.num_processes)
    episodes, device = draw_some(run, step, mine), run.accelerator.device
    support = tuple(to_device(tensors, device) for tensors in episodes.support)
    return _with_noise(replace(episodes, support=support, query=to_device(episodes.query, device)), run, step)


def check_collapse(run: Run, step: int, episodes: Episodes, start: Params) -> dict[str, Any]:
    """Checks the run after a meta-step if that is due, and returns entries for its line of metrics.jsonl.

    Args:
        run: the run, whose theta has moved.
        step: meta-step, counted from 0.
        episodes: this process's episodes, tensors (T, B, L).
        start: their starting values, each (T, ...).

    Raises:
        Diverged: the same check has failed `outer.patience` times in a row.
    """
    if not is_due(step):
        return {}
    line = run.watch.features(run.model, step)
    if run.learner.adapts:
        losses = same_support(run.loss, run.state.backbone, start, episodes, run.inner)
        before, after = over_processes(run.accelerator, losses)
        line |= run.watch.support(before, after, step)
    return line


def draw_some(run: Run, step: int, indices: Sequence[int]) -> Episodes:
    """Returns episodes of meta-step `step` by their numbers, on the CPU, without noise keys."""
    return run.sampler.meta_batch(step, indices, run.task.collate, run.task.corrupt)


def spent_on(run: Run, episodes: Episodes) -> Spent:
    """Returns the sub-words, and the FLOPs if counted, of the last meta-step over all processes.

    Args:
        run: its meter may hold the FLOPs of the step.
        episodes: this process's episodes, tensors (T, B, L).
    """
    return Spent(subwords_processed(run, episodes), run.meter.flops).over_processes(run.accelerator)


def subwords_processed(run: Run, episodes: Episodes) -> int:
    """Returns the sub-words that pass through the encoder in a meta-step, padding included where batches are padded.

    Args:
        run: its learner and inner loop define the passes.
        episodes: this process's episodes, tensors (T, B, L).
    """
    passes = run.learner.passes(episodes)
    packed = run.inner.execution.packs
    return sum(
        positions(batch, packed) for _, part in chunks(passes, run.inner) for batch in (*part.support, part.query)
    )


def _with_noise(episodes: Episodes, run: Run, step: int) -> Episodes:
    """Returns the episodes with noise keys in all batches that the inner loop trains on."""
    if not run.model.noisy:
        return episodes
    on_query = run.learner.adapts_on_query
    batches = (*episodes.support, *((episodes.query,) if on_query else ()))
    trained = []
    for inner_step, tensors in enumerate(batches):
        each = ({name: value[place] for name, value in tensors.items()} for place in range(len(episodes.indices)))
        keys = [
            noise_keys(batch, run.seed, step, index, inner_step)[NOISE]
            for batch, index in zip(each, episodes.indices, strict=True)
        ]
        trained.append({**tensors, NOISE: torch.stack(keys)})
    steps = len(episodes.support)
    return replace(episodes, support=tuple(trained[:steps]), query=trained[steps] if on_query else episodes.query)


def sum_over_processes(outcome: Outcome, accelerator: Accelerator) -> Outcome:
    """Returns the sum of all processes' outcomes, which is sent as one flat vector."""
    if accelerator.num_processes == 1:
        return outcome
    tensors = [*outcome.gradients.values(), *outcome.mean_fast.values(), *outcome.last_fast.values()]
    tensors += [outcome.query_loss, outcome.support_loss]
    flat: torch.Tensor = accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), reduction="sum")
    pieces = flat.split([tensor.numel() for tensor in tensors])
    whole = iter([piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)])
    # The pieces come in the order in which the tensors were joined.
    return Outcome(
        gradients={name: next(whole) for name in outcome.gradients},
        mean_fast={name: next(whole) for name in outcome.mean_fast},
        last_fast={name: next(whole) for name in outcome.last_fast},
        query_loss=next(whole),
        support_loss=next(whole),
    )
